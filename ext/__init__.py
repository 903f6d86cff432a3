"""Compiled kernels behind small validating functions. Knows arrays, nothing else."""
