"""Polygons to label images, exactly: a pixel belongs to the polygon that its centre lies in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fill_polygons(
    shape: tuple[int, int], corners: ArrayLike, ring_offsets: ArrayLike, polygon_offsets: ArrayLike, values: ArrayLike
) -> NDArray[np.int32]:
    """Draw polygons into a label image.

    A pixel belongs to a polygon if its centre lies inside by the even-odd rule over the polygon's rings (so that
    holes stay free). A centre on an edge belongs to the polygon below it or to its right: polygons that share a border
    neither overlap nor leave a gap. A pixel that several polygons claim goes to the first.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image in pixels; what lies outside is cut off.
    corners : (V, 2) array_like of float
        (row, column) of the rings' corners; (0, 0) is the outer corner of the first pixel. Rings need not be closed.
    ring_offsets : (R + 1,) array_like of int
        Ring r owns the corners ``ring_offsets[r]:ring_offsets[r + 1]``.
    polygon_offsets : (P + 1,) array_like of int
        Polygon p owns the rings ``polygon_offsets[p]:polygon_offsets[p + 1]``.
    values : (P,) array_like of int
        Each polygon's label, at least 1; polygons may share one.

    Returns
    -------
    (H, W) int32
        The label image, 0 where no polygon is.

    Raises
    ------
    ValueError
        If a corner is not finite, offsets do not fit or a label is below 1.

    Examples
    --------
    >>> square = [[0, 0], [0, 2], [2, 2], [2, 0]]
    >>> fill_polygons((2, 3), square, [0, 4], [0, 1], [7]).tolist()
    [[7, 7, 0], [7, 7, 0]]
    """
    corners = np.ascontiguousarray(corners, np.float64).reshape(-1, 2)
    rings, polygons, labels = (
        np.ascontiguousarray(array, np.int64) for array in (ring_offsets, polygon_offsets, values)
    )
    if not np.isfinite(corners).all():
        raise ValueError("`corners` must be finite")
    if not (_fits(rings, len(corners)) and _fits(polygons, len(rings) - 1) and len(labels) == len(polygons) - 1):
        raise ValueError("`ring_offsets` and `polygon_offsets` must rise from 0 to the number of corners and rings")
    if labels.size and (labels.min() < 1 or labels.max() > np.iinfo(np.int32).max):
        raise ValueError("`values` must be labels from 1 to 2^31 - 1")

    from nuclix.ext import _raster_kernels

    image = np.zeros(shape, np.int32)
    _raster_kernels.fill_polygons(image, corners, rings, polygons, labels.astype(np.int32))
    return image


def _fits(offsets: NDArray[Any], size: int) -> bool:
    return bool(len(offsets) and offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) >= 0).all())
