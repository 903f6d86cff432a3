"""Outlines of the objects of a label image, along pixel edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _outlines

_DIRECT = (np.uint8, np.uint16, np.uint32, np.int32, np.int64)
_MAX_EXTENT = 2**31 - 1  # corners are int32


@dataclass(frozen=True, slots=True)
class Outlines:
    """Outlines of N objects in order of first pixel, as columns.

    An object's outline is one polygon for each of its 4-connected parts, in order of their first pixels: a shell ring,
    then its hole rings. Rings follow pixel edges, turn at every corner, and are not closed (the first corner is not
    repeated). As (x, y) = (column, row), shells have positive shoelace area and holes negative: shells are
    counter-clockwise in the sense of GeoJSON (RFC 7946, y upwards), clockwise on a screen. A ring's first corner is the
    west end of the top edge of a shell, the east end of that of a hole; a shell's is its part's first pixel.

    Attributes
    ----------
    labels : (N,) int64
        The objects' labels.
    first : (N, 2) int64
        Row and column of the first pixel in raster order.
    pixels : (N,) int64
        Number of pixels: the area of the outline, exactly.
    rings : (N + 1,) int64
        Object i owns rings ``rings[i]:rings[i + 1]``.
    shells : (R,) bool
        True where a ring is a shell and so begins a polygon.
    offsets : (R + 1,) int64
        Ring r owns corners ``offsets[r]:offsets[r + 1]``.
    corners : (V, 2) int32
        (row, column) of pixel corners: pixel (r, c) spans (r, c) to (r + 1, c + 1).
    """

    labels: NDArray[np.int64]
    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    rings: NDArray[np.int64]
    shells: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    corners: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


def label_rows(labels: NDArray[Any]) -> NDArray[Any]:
    """Return a label image in a type that the kernels read, rows contiguous, copied only where it must be.

    Raises
    ------
    TypeError
        If it does not hold whole numbers.
    ValueError
        If it is not an image, or too large for the kernels.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise ValueError(f"labels must be a (height, width) image, not of shape {labels.shape}")
    if labels.dtype.kind not in "uib":
        raise TypeError(f"labels must be whole numbers, not {labels.dtype}")
    if max(labels.shape) > _MAX_EXTENT:
        raise ValueError(f"a label image of {labels.shape} is too large: corners are 32-bit numbers")
    if labels.dtype == np.bool_:
        labels = labels.view(np.uint8)
    elif labels.dtype == np.uint64 and labels.size and int(labels.max()) >= 2**63:
        raise ValueError("labels must be below 2^63")
    if labels.dtype not in _DIRECT:
        labels = labels.astype(np.int64)
    return contiguous_rows(labels)


def contiguous_rows(image: NDArray[Any]) -> NDArray[Any]:
    """Return `image`, copied only if its rows are not contiguous."""
    apart = image.shape[1] > 1 and image.strides[1] != image.itemsize
    if apart or image.strides[0] % image.itemsize or not image.flags.aligned:
        return np.require(image, requirements=["C", "A"])
    return image


def label_outlines(labels: NDArray[Any]) -> Outlines:
    """Return the pixel-edge polygons of every label.

    Every polygon is valid (OGC, JTS) by construction. Where two pixels of one 4-connected part touch only at a corner,
    the outline joins them there: the background between them becomes a hole that may touch its shell, or another hole,
    at that point, and no ring touches itself. Where they belong to two parts of a label, two polygons touch there.

    The rows' runs of equal labels are found in one scan; the ends of runs are paired across every row boundary
    and the rings are the cycles of that pairing. Work is linear in the pixels, with a small constant
    for pixels inside a run; memory is linear in the number of runs.

    Parameters
    ----------
    labels : (H, W) integer or bool array
        0 is background. Any memory order; copied only where rows are not contiguous or the type is not one of
        uint8, uint16, uint32, int32, int64.

    Returns
    -------
    Outlines
        One object a label, in order of first pixel.

    Raises
    ------
    TypeError
        If `labels` does not hold whole numbers.
    ValueError
        If `labels` is not an image, holds a negative number, or is longer than 2^31 - 1 on a side.
    OverflowError
        If the image has more than 2^29 runs of labels.
    """
    columns = _outlines.outlines(label_rows(labels))
    names, first, pixels, rings, shells, offsets, corners = columns
    return Outlines(names, first, pixels, rings, shells.view(np.bool_), offsets, corners)
