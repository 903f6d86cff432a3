"""Nuclei as the GeoJSON that QuPath 0.4 to 0.7 imports: a FeatureCollection of detections, one feature a line."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.objects import Objects
from nuclix.plugins.writers._features import BETWEEN, TAIL, FeatureFormatter
from nuclix.plugins.writers._session import FileSession

_GZIP_WINDOW = zlib.MAX_WBITS | 16  # zlib's notation of a gzip header, which then has no name and no time
_GZIP_LEVEL = 6


class GeoJSONSession(FileSession):
    """A GeoJSON file being written.

    Parameters
    ----------
    path : Path
        The final name.
    header : SlideHeader
        The slide.
    compressed : bool
        Whether to gzip it.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path, header: SlideHeader, *, compressed: bool = False) -> None:
        super().__init__(path, header)
        self._format = FeatureFormatter(header)
        self._gzip = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW) if compressed else None
        self._empty = True
        for text in self._format.annotations():
            self._put_feature(text)

    def _put(self, text: bytes) -> None:
        self._pending.write(text if self._gzip is None else self._gzip.compress(text))

    def _put_feature(self, text: bytes) -> None:
        self._put(self._format.head if self._empty else BETWEEN)
        self._put(text)
        self._empty = False

    def _append(self, objects: Objects) -> None:
        for text in self._format.features(objects):
            self._put_feature(text)

    def _finish(self) -> None:
        self._put(self._format.head + TAIL if self._empty else TAIL)
        if self._gzip is not None:
            self._pending.write(self._gzip.flush())


class GeoJSONWriter:
    """Writes ``<slide>.geojson``."""

    suffix: ClassVar[str] = ".geojson"

    def open(self, path: Path, header: SlideHeader) -> GeoJSONSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return GeoJSONSession(path, header)


class GzippedGeoJSONWriter:
    """Writes ``<slide>.geojson.gz``: less disk, but QuPath needs as much memory as for the plain file."""

    suffix: ClassVar[str] = ".geojson.gz"

    def open(self, path: Path, header: SlideHeader) -> GeoJSONSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return GeoJSONSession(path, header, compressed=True)
