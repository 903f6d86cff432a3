"""Slides: open a file, read boxes of it at any scale, find tissue."""
