"""Polygons of the regions of a low-resolution mask, such as pieces of tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class MaskRegions:
    """The regions of a mask.

    Attributes
    ----------
    labels : (height, width) int32
        0 is background, k is region k.
    polygons : tuple of tuple of (V, 2) float64
        Polygon k - 1 is region k: a shell, then its holes; rings are (x, y) in pixels of the mask, not closed. Pixel
        (row, column) spans x from column to column + 1.
    """

    labels: NDArray[np.int32]
    polygons: tuple[tuple[NDArray[np.float64], ...], ...]


def mask_regions(mask: NDArray[np.bool_], min_pixels: int) -> MaskRegions:
    """Outline the 4-connected regions of a mask.

    Parameters
    ----------
    mask : (height, width) bool
        The mask.
    min_pixels : int
        Smaller regions are left out, smaller holes are filled.

    Returns
    -------
    MaskRegions
        In order of first pixel. Every polygon is valid: rings follow pixel edges and may touch at a point, never cross.
    """
    from nuclix.ext.components import connected_components, without_small
    from nuclix.ext.outlines import label_outlines

    holes, count = connected_components(np.pad(~mask, 1, constant_values=True), 4)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    small = sizes < min_pixels
    small[[0, holes[0, 0]]] = False  # the mask itself, and what surrounds it
    filled = mask | small[holes][1:-1, 1:-1]
    labels = without_small(connected_components(filled, 4)[0], min_pixels)
    outlines = label_outlines(labels)
    rings = [
        np.ascontiguousarray(outlines.corners[start:end, ::-1], np.float64)
        for start, end in zip(outlines.offsets[:-1], outlines.offsets[1:], strict=True)
    ]
    polygons = tuple(
        tuple(rings[start:end]) for start, end in zip(outlines.rings[:-1], outlines.rings[1:], strict=True)
    )
    return MaskRegions(labels, polygons)


def ring_area(ring: NDArray[np.float64]) -> float:
    """Return the signed area of a ring (shoelace formula): of holes it has the opposite sign of their shell's."""
    x, y = (ring - ring[0]).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def polygon_area(polygon: tuple[NDArray[np.float64], ...]) -> float:
    """Return the area of a shell without its holes."""
    shell, *holes = (abs(ring_area(ring)) for ring in polygon)
    return shell - sum(holes)
