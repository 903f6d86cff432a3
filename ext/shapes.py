"""Shape measurements of outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _shapes
from nuclix.ext.outlines import UNITS_PER_PIXEL

MIN_CORNERS = 3  # of a ring that encloses anything
_INT32 = 2.0**31
_DIMENSIONS = np.array([2, 1, 2, 1, 2, 1, 1])  # of the columns of Shapes: areas and lengths


class Rings(Protocol):
    """Outlines as columns: see `nuclix.ext.outlines.Outlines`, whose orientation of rings is not needed here."""

    @property
    def rings(self) -> NDArray[np.int64]:
        """(N + 1,) object i owns rings ``rings[i]:rings[i + 1]``."""
        ...

    @property
    def shells(self) -> NDArray[np.bool_]:
        """(R,) True where a ring begins a polygon."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(R + 1,) ring r owns corners ``offsets[r]:offsets[r + 1]``."""
        ...

    @property
    def corners(self) -> NDArray[np.int32] | NDArray[np.float32]:
        """(V, 2) row and column of the rings' corners."""
        ...


@dataclass(frozen=True, slots=True)
class Shapes:
    """Measurements of N outlines, each (N,) float64, in pixels or square pixels.

    Attributes
    ----------
    area : array
        Area, holes taken off.
    perimeter : array
        Length of all rings, holes included.
    exterior_area, exterior_perimeter : array
        Area and length of the shells alone, holes filled in.
    hull_area : array
        Area of the convex hull of all parts.
    min_bounding_circle_diameter : array
        Diameter of the least circle around all parts.
    min_width : array
        Least distance between two parallel lines that enclose all parts (JTS: MinimumDiameter).
    """

    area: NDArray[np.float64]
    perimeter: NDArray[np.float64]
    exterior_area: NDArray[np.float64]
    exterior_perimeter: NDArray[np.float64]
    hull_area: NDArray[np.float64]
    min_bounding_circle_diameter: NDArray[np.float64]
    min_width: NDArray[np.float64]


def _checked_offsets(name: str, offsets: NDArray[np.int64], owned: int, least: int) -> NDArray[np.int64]:
    offsets = np.require(offsets, np.int64, ["C", "A"])
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != owned:
        raise ValueError(f"`{name}` must run from 0 to the {owned} it divides")
    if len(offsets) > 1 and int(np.diff(offsets).min()) < least:
        raise ValueError(f"`{name}` must give every row {least} or more")
    return offsets


def checked_rings(
    outlines: Rings,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int32] | NDArray[np.float32]]:
    """Return rings, shells, offsets and corners (int32 or float32) in the types and order that kernels read.

    Raises
    ------
    ValueError
        If the columns don't fit each other, an object has no ring or a ring has fewer than three corners.
    """
    floating = np.asarray(outlines.corners).dtype.kind == "f"
    corners = np.require(outlines.corners, np.float32 if floating else np.int32, ["C", "A"])
    shells = np.require(outlines.shells, np.bool_, ["C", "A"])
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError(f"`corners` must be (V, 2), not {corners.shape}")
    offsets = _checked_offsets("offsets", outlines.offsets, len(corners), MIN_CORNERS)
    rings = _checked_offsets("rings", outlines.rings, len(shells), 1)
    if len(offsets) != len(shells) + 1:
        raise ValueError(f"{len(shells)} rings need {len(shells) + 1} offsets, not {len(offsets)}")
    return rings, shells, offsets, corners


def shape_measurements(outlines: Rings) -> Shapes:
    """Measure outlines.

    One pass over an object's corners gives areas (shoelace) and lengths; the least and greatest column of each row
    give the convex hull (Andrew's monotone chain without a sort); rotating calipers over the hull give the least width,
    and growing a circle by the furthest corner the enclosing circle (Elzinga and Hearn, The minimum covering sphere
    problem, 1972). Linear in the corners.

    Parameters
    ----------
    outlines : Rings
        N outlines, such as `Outlines` or the engine's `Objects`. Edges need not lie along pixels: any rings will do
        that are valid as polygons and lie inside a square of 2^30 pixels. Corners of a floating type are taken to
        the nearest 1/32 of a pixel, which smooth outlines are made of, and lie inside a square of 2^25 pixels.

    Returns
    -------
    Shapes
        Columns of N.

    Raises
    ------
    ValueError
        If the columns don't fit each other, an object has no ring, a ring has fewer than three corners, a corner
        is not finite, or an outline is too large.
    """
    rings, shells, offsets, corners = checked_rings(outlines)
    if len(rings) == 1:
        return Shapes(*np.zeros((7, 0)))
    if corners.dtype == np.int32:
        columns = _shapes.shapes(rings, shells.view(np.uint8), offsets, corners.astype(np.int32, copy=False))
        return Shapes(*np.ascontiguousarray(columns.T))
    whole = np.rint(corners * np.float32(UNITS_PER_PIXEL))
    if not (np.abs(whole) < _INT32).all():
        raise ValueError("a corner is not finite, or 2^26 pixels or more from the origin")
    columns = _shapes.shapes(rings, shells.view(np.uint8), offsets, whole.astype(np.int32))
    unit = 1 / UNITS_PER_PIXEL
    return Shapes(*np.ascontiguousarray(columns.T) * (unit**_DIMENSIONS)[:, None])
