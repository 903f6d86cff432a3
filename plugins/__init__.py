"""Everything that can be swapped: readers, post-processors, recipes, writers, weights."""
