"""The Numba side of `nuclix.ext.raster`."""

from __future__ import annotations

import numpy as np

from nuclix.ext._jit import kernel


@kernel
def _first_centre(position, low, high):  # type: ignore[no-untyped-def]
    """Return the first pixel whose centre is at or past `position`, clipped to low..high."""
    return np.int64(min(max(np.ceil(position - 0.5), low), high))


@kernel
def _toggle_edge(parity, top, left, start, end):  # type: ignore[no-untyped-def]
    """Toggle, in every row whose centre the edge crosses, the first pixel past the crossing.

    The edge runs downwards, whichever way its ring runs, so that neighbours who share it round alike.
    """
    if start[0] > end[0]:
        start, end = end, start
    height, width = parity.shape
    first = _first_centre(start[0], top, top + height)
    last = _first_centre(end[0], top, top + height)
    for row in range(first, last):
        along = (row + 0.5 - start[0]) / (end[0] - start[0])
        crossing = start[1] + along * (end[1] - start[1])
        parity[row - top, _first_centre(crossing, left, left + width - 1) - left] ^= 1


@kernel
def _fill(labels, corners, ring_offsets, value):  # type: ignore[no-untyped-def]
    """Give `value` to the free pixels whose centres lie inside the polygon of these rings."""
    inside = corners[ring_offsets[0] : ring_offsets[-1]]
    if inside.shape[0] == 0:
        return
    top = _first_centre(inside[:, 0].min(), 0, labels.shape[0])
    bottom = _first_centre(inside[:, 0].max(), 0, labels.shape[0])
    left = _first_centre(inside[:, 1].min(), 0, labels.shape[1])
    right = _first_centre(inside[:, 1].max(), 0, labels.shape[1])
    parity = np.zeros((bottom - top, right - left + 1), np.uint8)  # the last column takes what lies past the rest
    for ring in range(ring_offsets.shape[0] - 1):
        stop = ring_offsets[ring + 1]
        for corner in range(ring_offsets[ring], stop):
            after = corner + 1 if corner + 1 < stop else ring_offsets[ring]
            start = (corners[corner, 0], corners[corner, 1])
            _toggle_edge(parity, top, left, start, (corners[after, 0], corners[after, 1]))
    for row in range(bottom - top):
        odd = np.uint8(0)
        for col in range(right - left):
            odd ^= parity[row, col]
            if odd and labels[top + row, left + col] == 0:
                labels[top + row, left + col] = value


@kernel
def fill_polygons(labels, corners, ring_offsets, polygon_offsets, values):  # type: ignore[no-untyped-def]
    """Fill the polygons in their order."""
    for polygon in range(values.shape[0]):
        rings = ring_offsets[polygon_offsets[polygon] : polygon_offsets[polygon + 1] + 1]
        _fill(labels, corners, rings, values[polygon])
