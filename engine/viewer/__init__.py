"""A local viewer of an output folder: slides at any zoom with their outlines, served to this machine's browser."""
