"""Segment nuclei in whole-slide images: slides in, objects out. Knows no plugin by name."""
