"""Objects as a table: one line a nucleus."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.errors import OutputError
from nuclix.engine.segmentation.objects import Objects


@dataclass(frozen=True, slots=True)
class CSVWriter:
    """Writes first pixel, class and measurements of every object."""

    suffix: ClassVar[str] = ".csv"

    def open(self, path: Path, header: SlideHeader) -> CSVSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return CSVSession(path, header)


class CSVSession:
    """One table being written, under a temporary name until `commit`."""

    def __init__(self, path: Path, header: SlideHeader) -> None:
        self._path = path
        self._header = header
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._named = False
        try:
            self._file: TextIO = self._temporary.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise OutputError(f"{path}: can't be written ({error.strerror})") from error
        self._rows = csv.writer(self._file)

    def write(self, objects: Objects) -> None:
        """Append objects."""
        if not self._named:
            self._rows.writerow(["row", "col", "class", "pixels", *objects.measurements])
            self._named = True
        for index in range(len(objects)):
            row, col = objects.first[index].tolist()
            name = self._header.classes[objects.classes[index]].name
            values = [float(column[index]) for column in objects.measurements.values()]
            self._rows.writerow([row, col, name, int(objects.pixels[index]), *values])

    def commit(self) -> None:
        """Flush to disk, then give the file its name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written ({error.strerror})") from error

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)
