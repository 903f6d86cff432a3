"""Sums of an image over the objects of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _label_statistics
from nuclix.ext.outlines import contiguous_rows, label_rows


def label_sums(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of `values` over each label, in order of first pixel (the order of `label_outlines`).

    An object's sum is added up run by run in raster order, so it depends on the object's pixels alone and not on
    where the image was cut.

    Parameters
    ----------
    labels : (H, W) integer or bool array
        0 is background.
    values : (H, W) real array
        float32 and float64 are read as they are, other types as float64.

    Returns
    -------
    (N,) float64
        Sums.

    Raises
    ------
    TypeError
        If `labels` does not hold whole numbers or `values` real ones.
    ValueError
        If `labels` is not an image, or `values` has another shape.
    """
    rows = label_rows(labels)
    values = np.asarray(values)
    if values.shape != rows.shape:
        raise ValueError(f"values of shape {values.shape} don't fit labels of shape {rows.shape}")
    if values.dtype.kind not in "uibf":
        raise TypeError(f"values must be real numbers, not {values.dtype}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return _label_statistics.sums(rows, contiguous_rows(values))
