"""Where a slide's nuclei lie and how large they are: counted while they are written, kept for the report."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.slide.view import SlideView, slide_bounds

# Cells along the longer edge of the density map: a few pixels of the thumbnail each.
CELLS = 96
# But no finer than this: below it a cell holds single nuclei, and the map shows noise.
FINEST_CELL_UM = 50.0
# Nuclei of tissue lie between 10 and 300 um2; the last bin takes all that are larger.
AREA_BIN_UM2 = 2.0
AREA_BINS = 250
_FORMAT = 2
_WITHOUT_CLASSES = 1  # the format of 0.1
_AREAS = ("Area µm^2", "Nucleus: Area µm^2")  # of nuclei alone, of cells


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """A slide's nuclei in a few numbers.

    Attributes
    ----------
    counts : (rows, columns) int64
        Nuclei of each cell of a map that covers what QuPath shows of the slide.
    cell_mm2 : float
        Area of one cell.
    areas : (AREA_BINS + 1,) int64
        Nuclei by area: bins of `AREA_BIN_UM2`, the last one open.
    area_sum : float
        Sum of all areas in um2.
    by_class : (classes, rows, columns) int64
        `counts` of each class, in the model's order; without classes (0, rows, columns).
    """

    counts: NDArray[np.int64]
    cell_mm2: float
    areas: NDArray[np.int64]
    area_sum: float
    by_class: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))


class SummaryAccumulator:
    """Counts the nuclei of a slide.

    Parameters
    ----------
    view : SlideView
        The slide at the model's scale, which the objects' coordinates are in.
    classes : int
        Number of classes to count apart; 1 counts all together.
    """

    def __init__(self, view: SlideView, classes: int = 1) -> None:
        bounds = slide_bounds(view.info)
        self._um = view.scale.mpp
        self._corner = np.array([bounds.row, bounds.col]) / view.downsample
        self._extent = np.maximum(np.array(bounds.shape) / view.downsample, 1.0)
        cell = max(self._extent.max() / CELLS, FINEST_CELL_UM / self._um)
        self._shape = np.maximum(np.rint(self._extent / cell), 1).astype(int)
        self._counts = np.zeros((max(classes, 1), int(self._shape.prod())), np.int64)
        self._areas = np.zeros(AREA_BINS + 1, np.int64)
        self._area_sum = 0.0

    def add(self, objects: Objects) -> None:
        """Count more nuclei; each counts where its first pixel lies."""
        place = (objects.first - self._corner) * (self._shape / self._extent)
        row, col = np.clip(place.astype(int), 0, self._shape - 1).T
        kinds, cells = self._counts.shape
        kind = objects.classes.astype(np.int64) if kinds > 1 else 0
        flat = kind * cells + row * self._shape[1] + col
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(kinds, cells)
        # The area of the outline that is written, as everywhere else; of the pixels where no shapes are measured.
        measured = [objects.measurements[name] for name in _AREAS if name in objects.measurements]
        area = measured[0] if measured else objects.pixels * self._um**2
        self._areas += np.bincount(np.minimum(area / AREA_BIN_UM2, AREA_BINS).astype(int), minlength=AREA_BINS + 1)
        self._area_sum += float(area.sum())

    def result(self) -> SlideSummary:
        """Return what was counted."""
        cell_mm2 = float((self._extent / self._shape).prod()) * self._um**2 / 1e6
        maps = self._counts.reshape(-1, *self._shape)
        by_class = maps if len(maps) > 1 else maps[:0]
        return SlideSummary(maps.sum(axis=0), cell_mm2, self._areas, self._area_sum, by_class)


def write_summary(path: Path, summary: SlideSummary) -> None:
    """Save a summary.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    buffer = io.BytesIO()
    numbers = np.array([summary.cell_mm2, summary.area_sum])
    np.savez_compressed(
        buffer,
        format=_FORMAT,
        counts=summary.counts,
        by_class=summary.by_class,
        areas=summary.areas,
        numbers=numbers,
    )
    try:
        replace_file(path, buffer.getvalue(), durable=False)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def read_summary(path: Path) -> SlideSummary | None:
    """Return a saved summary, or None where there is none that can be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            written = int(content["format"])
            if written not in (_FORMAT, _WITHOUT_CLASSES):
                return None
            counts, areas, numbers = content["counts"], content["areas"], content["numbers"]
            by_class = content["by_class"] if written == _FORMAT else np.zeros((0, *counts.shape), np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if counts.ndim != 2 or areas.shape != (AREA_BINS + 1,) or numbers.shape != (2,):
        return None
    if by_class.ndim != 3 or (len(by_class) and by_class.shape[1:] != counts.shape):
        return None
    return SlideSummary(counts, float(numbers[0]), areas, float(numbers[1]), by_class)


def density(summary: SlideSummary) -> NDArray[np.float64]:
    """Return the map of nuclei per mm2, smoothed by one cell (binomial 1 2 1), which keeps the number of nuclei.

    Parameters
    ----------
    summary : SlideSummary
        Of the slide.

    Returns
    -------
    (rows, columns) float64
    """
    return smoothed(summary.counts) / summary.cell_mm2


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a map smoothed by one cell (binomial 1 2 1), which keeps its sum."""
    smooth = counts.astype(np.float64)
    for axis in (0, 1):
        wide = np.pad(smooth, [(1, 1) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
        rows = np.moveaxis(wide, axis, 0)
        smooth = np.moveaxis((rows[:-2] + 2 * rows[1:-1] + rows[2:]) / 4, 0, axis)
    return smooth


def area_quantiles(areas: NDArray[np.int64], shares: tuple[float, ...]) -> tuple[float, ...] | None:
    """Return quantiles of nuclear area in um2 from counts by bin, linear within a bin.

    Parameters
    ----------
    areas : (AREA_BINS + 1,) int64
        Counts by bin.
    shares : tuple of float
        Each in 0..1, such as 0.5 for the median.

    Returns
    -------
    tuple of float or None
        None where there are no nuclei. What falls into the open bin is given its lower edge.
    """
    total = int(areas.sum())
    if total == 0:
        return None
    below = np.concatenate([[0], np.cumsum(areas[:-1])])
    return tuple(_quantile(below, share * total) for share in shares)


def _quantile(below: NDArray[np.int64], wanted: float) -> float:
    """Return the area that `wanted` nuclei are under; `below` says how many are under each bin's edge."""
    edge = int(np.searchsorted(below, wanted))
    if edge in (0, len(below)):
        return min(edge, AREA_BINS) * AREA_BIN_UM2
    under, reached = float(below[edge - 1]), float(below[edge])
    return (edge - 1 + (wanted - under) / (reached - under)) * AREA_BIN_UM2
