"""From maps to labelled nuclei."""
