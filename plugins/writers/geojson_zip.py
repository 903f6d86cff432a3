"""Nuclei as a zip of small GeoJSON files: QuPath reads one entry at a time, so a million nuclei fit in 2 GB of heap."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import IO, ClassVar

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.objects import Objects
from nuclix.plugins.writers._features import BETWEEN, TAIL, FeatureFormatter
from nuclix.plugins.writers._session import FileSession

# QuPath parses an entry into a tree of 15 to 18 times its size: 20 MB of text are read within 0.4 GB.
ENTRY_OBJECTS = 20_000
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the file does not depend on the day
_MODE = 0o644 << 16  # permissions of an unpacked entry, where the format keeps them
_UNIX = 3
_LEVEL = 4  # of deflate: twice as fast as 6 for 8 % more disk


class ZipSession(FileSession):
    """A zip of GeoJSON entries being written.

    Canonical order keeps neighbours together, so each entry covers one region of the slide.

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
        self._format = FeatureFormatter(header)
        self._archive = zipfile.ZipFile(self._pending.file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._entry: IO[bytes] | None = None
        self._entries = 0
        self._objects = 0  # in the open entry
        annotations = self._format.annotations()
        if annotations:
            with self._aborting():
                self._begin_entry("annotations")
                self._put(BETWEEN.join(annotations))
                self._end_entry()

    def _put(self, text: bytes) -> None:
        assert self._entry is not None
        self._entry.write(text)

    def _begin_entry(self, name: str) -> None:
        info = zipfile.ZipInfo(f"nuclei-{name}.geojson", _DATE)
        info.create_system, info.external_attr, info.compress_type = _UNIX, _MODE, zipfile.ZIP_DEFLATED
        self._entry = self._archive.open(info, "w")
        self._put(self._format.head)

    def _end_entry(self) -> None:
        if self._entry is not None:
            self._put(TAIL)
            self._entry.close()
            self._entry = None
            self._objects = 0

    def _next_entry(self) -> None:
        self._entries += 1
        self._begin_entry(f"{self._entries:04d}")

    def _append(self, objects: Objects) -> None:
        begin = 0
        while begin < len(objects):
            end = min(begin + ENTRY_OBJECTS - self._objects, len(objects))
            for text in self._format.features(objects, begin, end):
                self._put_feature(text)
            self._objects += end - begin
            begin = end
            if self._objects == ENTRY_OBJECTS:
                with self._aborting():
                    self._end_entry()

    def _put_feature(self, text: bytes) -> None:
        with self._aborting():
            if self._entry is None:
                self._next_entry()
            else:
                self._put(BETWEEN)
            self._put(text)

    def _finish(self) -> None:
        if self._entry is None and self._entries == 0:
            self._next_entry()  # QuPath does not recognise a zip without entries
        self._end_entry()
        self._archive.close()

    def _release(self) -> None:
        for part in (self._entry, self._archive):
            # Closing writes the directory, which a full disk does not take; without it Python would try again later.
            with contextlib.suppress(OSError, ValueError):
                if part is not None:
                    part.close()
        self._entry = None


class GeoJSONZipWriter:
    """Writes ``<slide>.zip`` of GeoJSON entries with at most `ENTRY_OBJECTS` objects each."""

    suffix: ClassVar[str] = ".zip"

    def open(self, path: Path, header: SlideHeader) -> ZipSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return ZipSession(path, header)
