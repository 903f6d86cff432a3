"""Objects as columns: one row a nucleus, outlines as offsets and coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.ragged import gathered, offsets_of

# Pixels along a cell of the canonical order: some thousand nuclei, few enough to lie close to each other.
ORDER_CELL = 2048
_CURVE_EDGE = 2**20  # cells along the square that the curve fills: more than 32-bit coordinates reach
PROBABILITY = "Detection probability"  # the measurement that holds the score, named as QuPath's StarDist does


@dataclass(frozen=True, slots=True)
class Objects:
    """N nuclei in slide coordinates at the model's scale.

    An object's outline is one or more polygons, each a shell ring followed by its hole rings. Rings are not closed
    (the first corner is not repeated); corners are (row, column), and pixel (r, c) spans (r, c) to (r + 1, c + 1).

    Attributes
    ----------
    first : (N, 2) int64
        Row and column of the first pixel in raster order: the canonical sort key.
    pixels : (N,) int64
        Number of pixels.
    rings : (N + 1,) int64
        Object i owns rings ``rings[i]:rings[i + 1]``.
    shells : (R,) bool
        True where a ring is a shell and so begins a polygon.
    offsets : (R + 1,) int64
        Ring r owns corners ``offsets[r]:offsets[r + 1]``.
    corners : (V, 2) float32
        The rings' corners: multiples of 1/32 px, or whole numbers along pixel edges.
    classes : (N,) int32
        Index of each object's class.
    measurements : mapping of str to (N,) float64
        In the order in which they are written; NaN where an object does not have a measurement.
    cell_offsets : (N + 1,) int64 or None
        Where objects are cells: the boundary of object i, one ring, owns
        ``cell_corners[cell_offsets[i]:cell_offsets[i + 1]]``. The rings above are then its nucleus.
    cell_corners : (W, 2) float32 or None
        Corners of the boundaries of cells.
    """

    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    rings: NDArray[np.int64]
    shells: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    corners: NDArray[np.float32]
    classes: NDArray[np.int32]
    measurements: Mapping[str, NDArray[np.float64]]
    cell_offsets: NDArray[np.int64] | None = None
    cell_corners: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def score(self) -> NDArray[np.float64]:
        """(N,) float64, detection probability of each object."""
        return self.measurements[PROBABILITY]

    @property
    def are_cells(self) -> bool:
        """Whether each object is a cell: a boundary around a nucleus."""
        return self.cell_offsets is not None

    @property
    def boundaries(self) -> Objects:
        """The objects outlined by what QuPath shows as their region: the boundary of a cell, else the nucleus."""
        if self.cell_offsets is None or self.cell_corners is None:
            return self
        return replace(
            self,
            rings=np.arange(len(self) + 1, dtype=np.int64),
            shells=np.ones(len(self), bool),
            offsets=self.cell_offsets,
            corners=self.cell_corners,
            cell_offsets=None,
            cell_corners=None,
        )


def take(objects: Objects, index: NDArray[np.int64]) -> Objects:
    """Return the objects `index`, in that order, with their outlines.

    Parameters
    ----------
    objects : Objects
        N objects.
    index : (M,) int64
        Which ones, each in 0..N-1.

    Returns
    -------
    Objects
        M objects that share no memory with the input.
    """
    ring_counts = np.diff(objects.rings)[index]
    ring_index = gathered(objects.rings[:-1][index], ring_counts)
    corner_counts = np.diff(objects.offsets)[ring_index]
    corner_index = gathered(objects.offsets[:-1][ring_index], corner_counts)
    cell_offsets, cell_corners = objects.cell_offsets, objects.cell_corners
    if cell_offsets is not None and cell_corners is not None:
        lengths = np.diff(cell_offsets)[index]
        cell_corners = cell_corners[gathered(cell_offsets[:-1][index], lengths)]
        cell_offsets = offsets_of(lengths)
    return Objects(
        first=objects.first[index],
        pixels=objects.pixels[index],
        rings=offsets_of(ring_counts),
        shells=objects.shells[ring_index],
        offsets=offsets_of(corner_counts),
        corners=objects.corners[corner_index],
        classes=objects.classes[index],
        measurements={name: values[index] for name, values in objects.measurements.items()},
        cell_offsets=cell_offsets,
        cell_corners=cell_corners,
    )


def concatenate(parts: Sequence[Objects]) -> Objects:
    """Join objects that have the same measurements in the same order.

    Parameters
    ----------
    parts : sequence of Objects
        At least one.

    Returns
    -------
    Objects
        All objects, part after part.

    Raises
    ------
    ValueError
        If `parts` is empty, the measurements' names differ, or only some are cells.
    """
    if not parts:
        raise ValueError("nothing to concatenate: `parts` is empty")
    names = tuple(parts[0].measurements)
    if any(tuple(part.measurements) != names for part in parts):
        raise ValueError("objects with different measurements can't be joined")
    if len({part.are_cells for part in parts}) > 1:
        raise ValueError("cells and nuclei without cells can't be joined")
    cell_lengths = [np.diff(part.cell_offsets) for part in parts if part.cell_offsets is not None]
    cell_corners = [part.cell_corners for part in parts if part.cell_corners is not None]
    rings = np.concatenate([np.diff(part.rings) for part in parts])
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return Objects(
        first=np.concatenate([part.first for part in parts]),
        pixels=np.concatenate([part.pixels for part in parts]),
        rings=offsets_of(rings),
        shells=np.concatenate([part.shells for part in parts]),
        offsets=offsets_of(lengths),
        corners=np.concatenate([part.corners for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        measurements={name: np.concatenate([part.measurements[name] for part in parts]) for name in names},
        cell_offsets=offsets_of(np.concatenate(cell_lengths)) if cell_lengths else None,
        cell_corners=np.concatenate(cell_corners) if cell_corners else None,
    )


def canonical_order(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order in which objects are stored and written: neighbours together.

    Cells of `ORDER_CELL` pixels are visited along a Hilbert curve, so that consecutive cells share an edge; within a
    cell, objects are sorted by first pixel: row, then column. A run of consecutive objects covers a compact
    region, which a reader of a part of the file profits from.

    Parameters
    ----------
    first : (N, 2) int64
        Row and column of each object's first pixel.

    Returns
    -------
    (N,) int64
        Indices of the objects, stable.
    """
    cells = np.clip(first // ORDER_CELL + _CURVE_EDGE // 2, 0, _CURVE_EDGE - 1)
    return np.lexsort((first[:, 1], first[:, 0], _hilbert_index(cells)))


def _hilbert_index(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each cell's place on the Hilbert curve over a square of `_CURVE_EDGE` cells (Hilbert 1891).

    From the largest quadrant to the smallest: the quadrant gives two bits of the place, and the coordinates
    within it are reflected and transposed to those of the curve's first quadrant.

    Parameters
    ----------
    cells : (N, 2) int64
        Row and column, each in 0.._CURVE_EDGE - 1.
    """
    y, x = cells[:, 0].copy(), cells[:, 1].copy()
    place = np.zeros(len(cells), np.int64)
    half = _CURVE_EDGE // 2
    while half:
        right, low = (x & half) > 0, (y & half) > 0
        place += half * half * ((3 * right.astype(np.int64)) ^ low)
        reflect = right & ~low
        x[reflect], y[reflect] = _CURVE_EDGE - 1 - x[reflect], _CURVE_EDGE - 1 - y[reflect]
        x[~low], y[~low] = y[~low].copy(), x[~low].copy()
        half //= 2
    return place


def centroids(objects: Objects) -> NDArray[np.float64]:
    """Return the centres of gravity of the outlines' areas (N, 2), in pixels at the model's scale.

    Green's theorem: with a = p x q for each edge from p to q, area = sum(a) / 2 and centroid =
    sum(a (p + q)) / (6 area). Holes have the opposite orientation, so they are subtracted.
    """
    if not len(objects):
        return np.zeros((0, 2))
    first = objects.offsets[objects.rings[:-1]]
    own = np.repeat(np.arange(len(objects)), np.diff(np.append(first, objects.offsets[-1])))
    here = objects.corners.astype(np.float64) - objects.first[own]  # small numbers keep the sums exact
    following = np.arange(1, len(here) + 1)
    following[objects.offsets[1:] - 1] = objects.offsets[:-1]
    there = here[following]
    cross = here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]
    moments = np.add.reduceat((here + there) * cross[:, None], first, axis=0)
    return moments / (3 * np.add.reduceat(cross, first))[:, None] + objects.first
