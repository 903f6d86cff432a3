"""Measurements behind ``nuclix bench``: margins, the network alone, kernels, scaling."""
