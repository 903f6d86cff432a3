"""Measurements as a table: one line per nucleus, with the columns of QuPath's exported measurements."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.coordinates import centroids, level0_corners, object_ids
from nuclix.engine.segmentation.objects import Objects
from nuclix.plugins.writers._session import FileSession

_DIGITS = 9  # significant; they tell any two float32 apart, as which QuPath keeps measurements
_BLOCK = 20_000  # lines formatted at once


class TableSession(FileSession):
    """A table being written.

    Parameters
    ----------
    path : Path
        The final name.
    header : SlideHeader
        The slide.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path, header: SlideHeader) -> None:
        super().__init__(path, header)
        self._names: tuple[str, ...] | None = None

    def _put_head(self, names: tuple[str, ...]) -> None:
        """Write the names of the columns; centroids are in µm where the scale is known, as QuPath gives them."""
        unit = "px" if self._header.mpp is None else "µm"
        self._names = names
        fixed = ["Image", "Object ID", "Object type", "Classification", f"Centroid X {unit}", f"Centroid Y {unit}"]
        self._pending.write(_lines([[*fixed, *names]]))

    def _append(self, objects: Objects) -> None:
        names = tuple(objects.measurements)
        if self._names is None:
            self._put_head(names)
        if names != self._names:
            raise ValueError(f"every object of a file has the same measurements: {self._names}, not {names}")
        if not len(objects):
            return
        header = self._header
        shown = objects.boundaries
        points = centroids(shown, level0_corners(shown, header)).points * (header.mpp or 1.0)
        object_type = "Cell" if objects.are_cells else "Detection"
        values = np.column_stack([points, *objects.measurements.values()])
        kinds = [kind.name for kind in header.classes] or [""]
        classes = [kinds[index] for index in objects.classes.tolist()]
        identifiers = object_ids(objects, header)
        for start in range(0, len(objects), _BLOCK):
            rows = zip(identifiers[start:], classes[start:], values[start : start + _BLOCK].tolist(), strict=False)
            self._pending.write(
                _lines([header.name, identifier, object_type, kind, *map(_text, row)] for identifier, kind, row in rows)
            )

    def _finish(self) -> None:
        if self._names is None:
            self._put_head(())


def _text(value: float) -> str:
    """Return a number; one that is not known is an empty cell."""
    return "" if value != value else f"{value:.{_DIGITS}g}"  # noqa: PLR0124 (NaN differs from itself)


def _lines(rows: object) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return buffer.getvalue().encode("utf-8", "backslashreplace")


class TableWriter:
    """Writes ``<slide>.csv``."""

    suffix: ClassVar[str] = ".csv"

    def open(self, path: Path, header: SlideHeader) -> TableSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return TableSession(path, header)
