"""Cells: nuclei grown up to a distance, measured as QuPath measures cells.

Growth needs the nuclei around a nucleus, which may be found much later than it. So cells are made after the last
nucleus is known, tile by tile in canonical order. A tile's nuclei are drawn from their outlines together with all that
lie within the context that decides their growth (`expansion_context`): a cell is the same however the slide is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.large_clumps import OVERLAP_PX
from nuclix.engine.segmentation.measure import (
    OD_STATISTICS,
    STAINS,
    STATISTICS,
    MeasurementSettings,
    measurement_names,
    shape_values,
    stain_values,
)
from nuclix.engine.segmentation.objects import ORDER_CELL, PROBABILITY, Objects, canonical_order, take
from nuclix.engine.slide.view import SlideView
from nuclix.ext.expansion import expand_labels, expansion_context
from nuclix.ext.label_sums import label_sums
from nuclix.ext.outlines import Outlines, outlines
from nuclix.ext.raster import fill_polygons
from nuclix.ext.stains import stain_statistics

NUCLEUS, CYTOPLASM, CELL = "Nucleus: ", "Cytoplasm: ", "Cell: "
AREA_RATIO = "Nucleus/Cell area ratio"
# QuPath's cell detection gives sum and range of nuclei alone.
_CELL_OD = tuple(name for name in OD_STATISTICS if name not in ("sum", "range"))
# Pixels beyond the context: more than an outline of which no pixel centre lies inside is long.
_SLACK_PX = 8
_BOX_OBJECTS = 100_000  # whose corners are read at once


def cell_measurement_names(mpp: float | None, settings: MeasurementSettings) -> tuple[str, ...]:
    """Return the names of the measurements of cells, in the order in which they are written.

    Parameters
    ----------
    mpp : float or None
        None where the scale is not known: lengths are then in px.
    settings : MeasurementSettings
        Which families.

    Returns
    -------
    tuple of str
        Those of QuPath 0.6 and later.
    """
    names: tuple[str, ...] = ()
    if "shape" in settings.families:
        shapes = measurement_names(mpp, replace(settings, families=("shape",)))[:-1]
        names = (*(part + name for part in (NUCLEUS, CELL) for name in shapes), AREA_RATIO)
    names += (PROBABILITY,)
    if "stain" in settings.families:
        parts = (NUCLEUS, CYTOPLASM, CELL)
        names += tuple(f"{part}{stain}: {name}" for part in parts for stain in STAINS for name in STATISTICS)
    if "stain-od" in settings.families:
        kinds = {NUCLEUS: OD_STATISTICS, CYTOPLASM: _CELL_OD, CELL: _CELL_OD}
        names += tuple(f"{part}{stain} OD {kind}" for part in kinds for stain in STAINS for kind in kinds[part])
    return names


def nuclei_reach(settings: MeasurementSettings, mpp: float) -> int:
    """Return how far around a region nuclei matter to the cells whose nuclei have their centres in it, in pixels.

    Parameters
    ----------
    settings : MeasurementSettings
        0 where they ask for no cells.
    mpp : float
        Micrometres along a pixel.
    """
    if settings.cell_expansion is None:
        return 0
    return expansion_context(settings.cell_expansion / mpp) + OVERLAP_PX


@dataclass(frozen=True, slots=True)
class _Tile:
    """Nuclei of one cell of the canonical order, and all that may stop their growth.

    Attributes
    ----------
    box : Box
        What is drawn.
    nuclei : Objects
        In order of first pixel, row by row.
    own : (M,) int64
        Which of `nuclei` are the tile's own, in canonical order.
    """

    box: Box
    nuclei: Objects
    own: NDArray[np.int64]


class CellMaker:
    """Makes the cells of a slide's nuclei.

    Parameters
    ----------
    nuclei : Objects
        All of them, in any order; columns may be mapped files.
    view : SlideView
        The slide at the model's scale, which is read again where stains are measured.
    settings : MeasurementSettings
        How to outline and what to measure; `cell_expansion` is set.
    """

    def __init__(self, nuclei: Objects, view: SlideView, settings: MeasurementSettings) -> None:
        if settings.cell_expansion is None:
            raise ValueError("the settings ask for no cells")
        self._nuclei = nuclei
        self._view = view
        self._settings = settings
        self._distance = settings.cell_expansion / view.scale.mpp
        self._order = canonical_order(nuclei.first).astype(np.int64)
        self._boxes = _boxes(nuclei)
        places = nuclei.first[self._order] // ORDER_CELL
        starts = np.flatnonzero(np.any(np.diff(places, axis=0) != 0, axis=1)) + 1
        self._tiles = np.unique(np.concatenate([[0], starts, [len(self._order)]])).astype(np.int64)
        self._extents = _united(self._boxes[self._order], self._tiles)

    def blocks(self, threads: int) -> Iterator[Objects]:
        """Yield all cells in canonical order, tile by tile.

        Parameters
        ----------
        threads : int
            Tiles in work at once.

        Raises
        ------
        SlideError
            If the slide can't be read.
        """
        if not len(self._nuclei):
            yield self._none()
            return
        with ThreadPoolExecutor(threads, "nuclix-cells") as pool:
            waiting: deque[Future[Objects]] = deque()
            try:
                for number in range(len(self._tiles) - 1):
                    waiting.append(pool.submit(self._cells, number))
                    if len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _none(self) -> Objects:
        """Return no cells, with all measurements."""
        names = cell_measurement_names(self._view.scale.mpp, self._settings)
        offsets, corners = np.zeros(1, np.int64), np.zeros((0, 2), np.float32)
        nothing = dict.fromkeys(names, np.zeros(0))
        return replace(self._nuclei, measurements=nothing, cell_offsets=offsets, cell_corners=corners)

    def _tile(self, number: int) -> _Tile:
        own = self._order[self._tiles[number] : self._tiles[number + 1]]
        margin = expansion_context(self._distance) + _SLACK_PX
        box = Box.between(*self._extents[number].tolist()).expand(margin).intersect(self._view.box)
        near = np.flatnonzero(_meet(self._extents, box))
        found = np.concatenate([self._order[self._tiles[k] : self._tiles[k + 1]] for k in near])
        found = found[_meet(self._boxes[found], box)]
        first = self._nuclei.first[found]
        found = found[np.lexsort((first[:, 1], first[:, 0]))]
        places = np.argsort(found)
        return _Tile(box, take(self._nuclei, found), places[np.searchsorted(found, own, sorter=places)])

    def _cells(self, number: int) -> Objects:
        tile = self._tile(number)
        own = take(tile.nuclei, tile.own)
        labels = _drawn(tile.nuclei, tile.box)
        grown = expand_labels(labels, self._distance)
        wanted = np.zeros(len(tile.nuclei) + 1, labels.dtype)
        wanted[tile.own + 1] = tile.own + 1
        grown = wanted[grown]
        settings = self._settings
        found = outlines(grown, settings.outline, settings.tolerance)
        rows = np.searchsorted(found.labels, tile.own + 1, sorter=(by_label := np.argsort(found.labels)))
        rows = by_label[rows]  # of the cells' columns, for each of the tile's own nuclei
        values = self._values(own, found, grown, labels, tile.box, rows)
        cells = _taken(found, rows, np.array([tile.box.row, tile.box.col]))
        return replace(own, measurements=values, cell_offsets=cells[0], cell_corners=cells[1])

    def _values(
        self,
        own: Objects,
        found: Outlines,
        grown: NDArray[np.int32],
        labels: NDArray[np.int32],
        box: Box,
        rows: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the measurements of the nuclei `own`, whose cells are at `rows` of `found`."""
        mpp, families = self._view.scale.mpp, self._settings.families
        values = {_nuclear(name): column for name, column in own.measurements.items()}
        if "shape" in families:
            shapes = shape_values(found, mpp)
            values |= {CELL + name: column[rows] for name, column in shapes.items()}
            area = next(iter(shapes))
            values[AREA_RATIO] = np.clip(values[NUCLEUS + area] / values[CELL + area], 0.0, 1.0)
        if self._settings.needs_pixels:
            rgb = self._view.read(box)
            values |= self._stains(CELL, grown, rgb, found.labels[rows])
            values |= self._stains(CYTOPLASM, np.where(labels > 0, 0, grown), rgb, found.labels[rows])
        return {name: values[name] for name in cell_measurement_names(mpp, self._settings)}

    def _stains(
        self, part: str, labels: NDArray[np.int32], rgb: NDArray[np.uint8], wanted: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the stain measurements of the labels `wanted`; NaN for one without a pixel."""
        settings = self._settings
        statistics = stain_statistics(labels, rgb, settings.inverse())
        pixels = label_sums(labels, np.ones(labels.shape, np.float32))
        numbers = np.rint(label_sums(labels, labels.astype(np.float32)) / np.maximum(pixels, 1)).astype(np.int64)
        row_of = np.full(int(wanted.max(initial=0)) + 1, -1)
        row_of[numbers] = np.arange(len(numbers))
        names = [f"{part}{stain}: {name}" for stain in STAINS for name in STATISTICS] * ("stain" in settings.families)
        names += [f"{part}{stain} OD {name}" for stain in STAINS for name in OD_STATISTICS] * (
            "stain-od" in settings.families
        )
        columns = stain_values(statistics, pixels.astype(np.int64), settings.families)
        return {name: np.append(column, np.nan)[row_of[wanted]] for name, column in zip(names, columns, strict=True)}


def _nuclear(name: str) -> str:
    """Return the name that a nucleus' measurement has in a cell."""
    return name if name == PROBABILITY or name.startswith(NUCLEUS) else NUCLEUS + name


def _boxes(objects: Objects) -> NDArray[np.int32]:
    """Return rows and columns of the boxes around objects, (N, 4): begin and end, in whole pixels."""
    boxes = np.zeros((len(objects), 4), np.int32)
    for start in range(0, len(objects), _BOX_OBJECTS):
        end = min(start + _BOX_OBJECTS, len(objects))
        corners = objects.offsets[objects.rings[start : end + 1]]
        part = objects.corners[corners[0] : corners[-1]]
        starts = corners[:-1] - corners[0]
        boxes[start:end, :2] = np.floor(np.minimum.reduceat(part, starts))
        boxes[start:end, 2:] = np.ceil(np.maximum.reduceat(part, starts))
    return boxes


def _united(boxes: NDArray[np.int32], bounds: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the boxes around runs of boxes; run k is ``bounds[k]:bounds[k + 1]``."""
    if not len(boxes):
        return boxes
    starts = bounds[:-1]
    return np.hstack([np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)])


def _meet(boxes: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    """Return which of the boxes have a pixel in `box`."""
    top, left, bottom, right = boxes.T
    inside: NDArray[np.bool_] = (top < box.row_end) & (bottom > box.row) & (left < box.col_end) & (right > box.col)
    return inside


def _drawn(nuclei: Objects, box: Box) -> NDArray[np.int32]:
    """Draw nuclei into a label image: nucleus i has the label i + 1, and every one a pixel.

    A pixel that outlines share goes to the first nucleus; one whose outline holds no pixel's centre gets its first
    pixel.
    """
    shells = np.flatnonzero(nuclei.shells)
    owners = np.searchsorted(nuclei.rings, shells, side="right")
    polygons = np.append(shells, len(nuclei.shells))
    corners = nuclei.corners.astype(np.float64) - (box.row, box.col)
    labels = fill_polygons(box.shape, corners, nuclei.offsets, polygons, owners)
    drawn = np.zeros(len(nuclei) + 1, bool)
    drawn[labels] = True
    for number in np.flatnonzero(~drawn[1:]):
        row, col = nuclei.first[number] - (box.row, box.col)
        if 0 <= row < box.height and 0 <= col < box.width:
            labels[row, col] = number + 1
    return labels


def _taken(found: Outlines, rows: NDArray[Any], corner: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return offsets and corners of the rings `rows`, one ring a cell, in the slide's coordinates."""
    lengths = np.diff(found.offsets)[rows]
    ends = np.cumsum(lengths)
    index = np.arange(int(lengths.sum())) + np.repeat(found.offsets[:-1][rows] - (ends - lengths), lengths)
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return offsets, (found.corners[index] + corner).astype(np.float32)
