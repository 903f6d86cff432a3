"""Nuclei as a zip of small GeoJSON files: QuPath reads one entry at a time, so a million nuclei fit in 2 GB of heap."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.objects import Objects
from nuclix.plugins.writers._features import BETWEEN, TAIL, FeatureFormatter
from nuclix.plugins.writers._session import FileSession
from nuclix.plugins.writers._zip_archive import ZipArchive, ZipEntry, compressed

# QuPath parses an entry into a tree of 15 to 18 times its size: 20 MB of text are read within 0.4 GB.
ENTRY_OBJECTS = 20_000


class ZipSession(FileSession):
    """A zip of GeoJSON entries being written; an entry is compressed while the next one is formatted.

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
        self._archive = ZipArchive(self._pending.write)
        self._compressor = ThreadPoolExecutor(1, "nuclix-zip")
        self._waiting: Future[ZipEntry] | None = None
        self._texts: list[bytes] = []  # of the open entry
        self._entries = 0
        self._objects = 0  # in the open entry
        annotations = self._format.annotations()
        if annotations:
            self._end_entry("annotations", annotations)

    def _end_entry(self, name: str, texts: list[bytes]) -> None:
        """Hand an entry over to be compressed, and write the one before it."""
        text = b"".join((self._format.head, BETWEEN.join(texts), TAIL))
        self._write_waiting()
        self._waiting = self._compressor.submit(compressed, f"nuclei-{name}.geojson", text)

    def _write_waiting(self) -> None:
        if self._waiting is not None:
            entry, self._waiting = self._waiting.result(), None
            with self._aborting():
                self._archive.add(entry)

    def _next_entry(self) -> None:
        self._entries += 1
        texts, self._texts, self._objects = self._texts, [], 0
        self._end_entry(f"{self._entries:04d}", texts)

    def _append(self, objects: Objects) -> None:
        begin = 0
        while begin < len(objects):
            end = min(begin + ENTRY_OBJECTS - self._objects, len(objects))
            self._texts += self._format.features(objects, begin, end)
            self._objects += end - begin
            begin = end
            if self._objects == ENTRY_OBJECTS:
                self._next_entry()

    def _finish(self) -> None:
        if self._texts or self._entries == 0:
            self._next_entry()  # QuPath does not recognise a zip without entries
        self._write_waiting()
        self._archive.finish()

    def _release(self) -> None:
        self._texts = []
        self._compressor.shutdown(wait=True, cancel_futures=True)


class GeoJSONZipWriter:
    """Writes ``<slide>.zip`` of GeoJSON entries with at most `ENTRY_OBJECTS` objects each."""

    suffix: ClassVar[str] = ".zip"

    def open(self, path: Path, header: SlideHeader) -> ZipSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return ZipSession(path, header)
