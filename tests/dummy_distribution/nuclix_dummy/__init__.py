"""A stranger's package: one plugin of each kind."""
