"""Files of objects."""
