"""Outlines of the objects of a label image: smooth polygons, or polygons along pixel edges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _outlines, _smoothing
from nuclix.ext.ragged import gathered, offsets_of

OutlineStyle = Literal["smooth", "pixel"]
DEFAULT_TOLERANCE = 0.5  # pixels
MAX_SMOOTH_EXTENT = 2**19  # pixels: float32 holds the corners of smooth outlines exactly up to here
UNITS_PER_PIXEL = _smoothing.UNITS_PER_PIXEL  # corners of smooth outlines are multiples of 1/32 px
_DIRECT = (np.uint8, np.uint16, np.uint32, np.int32, np.int64)
_MAX_EXTENT = 2**31 - 1  # corners are int32


@dataclass(frozen=True, slots=True)
class Outlines:
    """Outlines of N objects in order of first pixel, as columns.

    An object's outline is one or more polygons, each a shell ring followed by its hole rings. Rings are not closed (the
    first corner is not repeated). As (x, y) = (column, row), shells have positive shoelace area and holes negative:
    shells are counter-clockwise in the sense of GeoJSON (RFC 7946, y upwards), clockwise on a screen.

    Attributes
    ----------
    labels : (N,) int64
        The objects' labels.
    first : (N, 2) int64
        Row and column of the first pixel in raster order.
    pixels : (N,) int64
        Number of pixels of the object, whether or not the outline keeps its holes and parts.
    rings : (N + 1,) int64
        Object i owns rings ``rings[i]:rings[i + 1]``.
    shells : (R,) bool
        True where a ring is a shell and so begins a polygon.
    offsets : (R + 1,) int64
        Ring r owns corners ``offsets[r]:offsets[r + 1]``.
    corners : (V, 2) int32 or float32
        (row, column) in pixels: pixel (r, c) spans (r, c) to (r + 1, c + 1). Whole numbers of int32 along pixel edges,
        multiples of 1/32 in float32 for smooth outlines.
    """

    labels: NDArray[np.int64]
    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    rings: NDArray[np.int64]
    shells: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    corners: NDArray[np.int32] | NDArray[np.float32]

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


def _checked_tolerance(tolerance: float) -> float:
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"the tolerance must be a number of pixels, 0 or more, not {tolerance}")
    return float(tolerance)


def outlines(
    labels: NDArray[Any],
    style: OutlineStyle = "smooth",
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    keep_holes: bool = False,
) -> Outlines:
    """Return a valid polygon for every label.

    A smooth outline is drawn through the midpoints of the pixel edges, low-pass filtered, simplified by chords as long
    as the tolerance admits, and shifted outwards or inwards so that it encloses the area of its pixels within 1 % (0.5
    px below 50 px). No two of its edges come closer than a quarter of a pixel unless they share a corner, so it stays
    valid when coordinates are rounded. Where the simplified polygon would break this, it is simplified less, down to
    the midpoints themselves. It may reach half a pixel over the edge of the image.

    Parameters
    ----------
    labels : (H, W) integer or bool array
        0 is background; see `label_outlines`.
    style : {"smooth", "pixel"}
        "pixel" follows the pixel edges exactly: the perimeter of a disc is then 27 % too long.
    tolerance : float
        Greatest distance in pixels between a smooth outline and the points that simplification drops; 0 drops only
        points on straight lines. Not used along pixel edges.
    keep_holes : bool
        Keep holes. By default they are filled and the object's largest part is kept, so every outline is one ring.
        Parts of smooth outlines are 8-connected, and the largest is kept in any case; parts along pixel edges are
        4-connected, and with `keep_holes` all of them are kept (`label_outlines`).

    Returns
    -------
    Outlines
        One object a label, in order of first pixel.

    Raises
    ------
    TypeError
        If `labels` does not hold whole numbers.
    ValueError
        If `labels` is not an image or holds a negative number, a smooth outline is asked for in an image with a side
        longer than 2^19, or the style or tolerance does not exist.
    OverflowError
        If the image has more than 2^29 runs of labels.

    Examples
    --------
    >>> import numpy as np
    >>> rows, cols = np.indices((25, 25))
    >>> disc = (rows - 12) ** 2 + (cols - 12) ** 2 <= 100
    >>> len(label_outlines(disc).corners), len(outlines(disc).corners)
    (52, 10)
    """
    if style not in get_args(OutlineStyle):
        raise ValueError(f"the outline style is 'smooth' or 'pixel', not {style!r}")
    tolerance = _checked_tolerance(tolerance)
    if style == "pixel" and keep_holes:
        return label_outlines(labels)
    image = label_rows(labels)
    if style == "smooth" and max(image.shape) > MAX_SMOOTH_EXTENT:
        raise ValueError(f"an image of {image.shape} is too large for smooth outlines: outline it in blocks")
    names, first, pixels, rings, shells, offsets, corners = _outlines.outlines(image, style == "smooth")
    polygons = _smoothing.largest_polygons(rings, shells, offsets, corners)
    if not keep_holes:
        polygons[:, 1] = polygons[:, 0] + 1
    kept_rings = offsets_of(polygons[:, 1] - polygons[:, 0])
    kept = Outlines(
        names,
        first,
        pixels,
        kept_rings,
        np.zeros(kept_rings[-1], bool),
        offsets,
        corners,
    )
    kept.shells[kept.rings[:-1]] = True
    if style == "smooth":
        offsets, drawn = _smoothing.smooth(polygons, offsets, corners, tolerance)
        return replace(kept, offsets=offsets, corners=(drawn / np.float32(UNITS_PER_PIXEL)).astype(np.float32))
    rows = polygons[:, 0]
    lengths = offsets[rows + 1] - offsets[rows]
    return replace(kept, offsets=offsets_of(lengths), corners=corners[gathered(offsets[rows], lengths)])


def label_outlines(labels: NDArray[Any]) -> Outlines:
    """Return the pixel-edge polygons of every label, with all parts and holes: their area is the pixel count, exactly.

    One polygon for each 4-connected part, in order of their first pixels; rings turn at every corner. A ring's first
    corner is the west end of the top edge of a shell, the east end of that of a hole; a shell's is its part's first
    pixel.

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
