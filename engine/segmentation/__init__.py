"""One slide: from maps to nuclei, with outlines, measurements and a checkpoint."""
