"""What a slide's page shows of its nuclei, gathered in one pass over the stored objects with bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.object_index import BlockIndex, BlockIndexBuilder, indexed_blocks
from nuclix.engine.segmentation.objects import PROBABILITY, Objects
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.segmentation.summary import AREA_BIN_UM2, AREA_BINS

# Edge of a sample field: some hundred nuclei, each some 20 pixels across on the page.
FIELD_UM = 200.0
UNKNOWN_MPP = 0.25  # for the size of fields where no scale is known: that of most slides
# Fields are sought at steps of half their edge.
CELLS_A_FIELD = 2
MAX_CELLS = 2048  # along an edge: 400 mm; beyond it a field is larger
SCORE_BINS = 50
# Candidates for the gallery of doubtful nuclei, of which neighbours of a better one are left out.
CANDIDATES = 512
# Odd multipliers and a prime modulus (Knuth, vol. 3, section 6.4: multiplicative hashing).
_MIX = (np.uint64(2_654_435_761), np.uint64(40_503), np.uint64(1_000_003))
_AREA = "Area µm^2"


@dataclass(frozen=True, slots=True)
class SlideScan:
    """The nuclei of a slide, counted.

    Attributes
    ----------
    index : BlockIndex
        Where the blocks lie.
    mpp : float
        Micrometres along a pixel of the objects' coordinates.
    cell : float
        Edge of a cell of the maps, in those pixels; half a field.
    corner : (2,) float64
        Row and column where the maps begin, in those pixels.
    extent : (2,) float64
        Height and width of what is shown of the slide; the maps may reach over it by a part of a cell.
    counts : (rows, columns) int64
        Nuclei of each cell, by the middle of their boxes.
    score_sums : (rows, columns) float64
        Sum of their scores.
    areas : (classes, AREA_BINS + 1) int64
        Nuclei of each class by area: bins of `AREA_BIN_UM2`, the last one open.
    scores : (SCORE_BINS,) int64
        Nuclei by score, 0 to 1; all zero where none has one.
    doubtful : (M, 3) float64
        Score, row and column of the middle of those with the lowest scores, the lowest first.
    """

    index: BlockIndex
    mpp: float
    cell: float
    corner: NDArray[np.float64]
    extent: NDArray[np.float64]
    counts: NDArray[np.int64]
    score_sums: NDArray[np.float64]
    areas: NDArray[np.int64]
    scores: NDArray[np.int64]
    doubtful: NDArray[np.float64]


def scan(store: ObjectStore) -> SlideScan:
    """Count the objects of a store.

    Parameters
    ----------
    store : ObjectStore
        Open; read once, a block at a time.

    Returns
    -------
    SlideScan

    Raises
    ------
    DataError
        If the file is damaged.
    """
    counter = _Counter(store.slide.header)
    builder = BlockIndexBuilder()
    for objects, boxes in indexed_blocks(store, builder):
        counter.add(objects, boxes)
    return counter.result(builder.result())


class _Counter:
    """Counts blocks of objects."""

    def __init__(self, header: SlideHeader) -> None:
        self._mpp = (header.mpp or UNKNOWN_MPP) * header.downsample
        self._extent = extent = np.array(header.shape) / header.downsample
        self._cell = max(FIELD_UM / self._mpp / CELLS_A_FIELD, float(extent.max()) / MAX_CELLS)
        self._corner = np.array(header.origin, np.float64) / header.downsample
        rows, cols = (max(CELLS_A_FIELD, math.ceil(length / self._cell)) for length in extent)
        self._shape = (rows, cols)
        self._counts = np.zeros(rows * cols, np.int64)
        self._score_sums = np.zeros(rows * cols)
        self._areas = np.zeros((max(1, len(header.classes)), AREA_BINS + 1), np.int64)
        self._scores = np.zeros(SCORE_BINS, np.int64)
        self._doubtful = np.zeros((0, 3))

    def add(self, objects: Objects, boxes: NDArray[np.float64]) -> None:
        """Count a block."""
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        place = ((middles - self._corner) / self._cell).astype(np.int64)
        row, col = np.clip(place, 0, np.array(self._shape) - 1).T
        flat = row * self._shape[1] + col
        self._counts += np.bincount(flat, minlength=len(self._counts))
        area = objects.measurements.get(_AREA, objects.pixels * self._mpp**2)
        area = np.nan_to_num(area, nan=0.0)
        bins = np.minimum(area / AREA_BIN_UM2, AREA_BINS).astype(np.int64)
        kinds = np.clip(objects.classes, 0, len(self._areas) - 1).astype(np.int64)
        self._areas += np.bincount(kinds * (AREA_BINS + 1) + bins, minlength=self._areas.size).reshape(
            self._areas.shape
        )
        self._add_scores(objects.measurements.get(PROBABILITY), flat, middles)

    def _add_scores(
        self, scores: NDArray[np.float64] | None, flat: NDArray[np.int64], middles: NDArray[np.float64]
    ) -> None:
        if scores is None:
            return
        known = np.isfinite(scores)
        self._score_sums += np.bincount(flat, np.where(known, scores, 1.0), minlength=len(self._score_sums))
        bins = np.clip(scores[known] * SCORE_BINS, 0, SCORE_BINS - 1).astype(np.int64)
        self._scores += np.bincount(bins, minlength=SCORE_BINS)
        rows = np.column_stack([scores[known], middles[known]])
        rows = np.concatenate([self._doubtful, rows])
        order = np.lexsort((_scattered(rows[:, 1:]), rows[:, 0]))[:CANDIDATES]
        self._doubtful = rows[order]

    def result(self, index: BlockIndex) -> SlideScan:
        """Return what was counted."""
        return SlideScan(
            index,
            self._mpp,
            self._cell,
            self._corner,
            self._extent,
            self._counts.reshape(self._shape),
            self._score_sums.reshape(self._shape),
            self._areas,
            self._scores,
            self._doubtful,
        )


def _scattered(places: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return numbers that depend on places alone and jump about: of equal scores, no part of the slide goes first."""
    row, col = places.astype(np.int64).astype(np.uint64).T
    return (row * _MIX[0] + col * _MIX[1]) % _MIX[2]
