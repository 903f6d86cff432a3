"""Sums of an image over the objects of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _components, _label_statistics
from nuclix.ext._check import as_image, check_shape
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


def label_means(labels: NDArray[np.int32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of `values` over each of the labels 1 ... N, where N is the largest.

    Values are added up one after the other in raster order, as `numpy.bincount` does.

    Parameters
    ----------
    labels : (H, W) int32 array
        0 is background.
    values : (H, W) float32 array
        What is averaged.

    Returns
    -------
    (N,) float64
        0 for a label without pixels.

    Raises
    ------
    TypeError, ValueError
        If an array is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> label_means(np.array([[1, 1, 0, 3]], np.int32), np.array([[1, 2, 5, 4]], np.float32)).tolist()
    [1.5, 0.0, 4.0]
    """
    image, heights = as_image(labels, "labels", (np.int32,)), as_image(values, "values", (np.float32,))
    check_shape(heights, image.shape, "values")
    if image.size and int(image.min()) < 0:
        raise ValueError(f"`labels` must not be negative: {image.min()}")
    count = int(image.max(initial=0)) + 1
    sums, areas = np.zeros(count), np.zeros(count, np.int64)
    _components.label_totals(image, heights, sums, areas)
    return sums[1:] / np.maximum(areas[1:], 1)
