"""Nuclei as the GeoJSON that QuPath 0.4 to 0.7 imports: a FeatureCollection of detections, one feature a line."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import ClassVar

import numpy as np

from nuclix.engine.contracts import ObjectClass, SlideHeader
from nuclix.engine.errors import OutputError
from nuclix.engine.files import sync_folder, temporary_name
from nuclix.engine.segmentation.objects import Objects
from nuclix.ext.geojson_text import FeatureStyle, feature_text

_HEAD = b'{"type":"FeatureCollection","features":[\n'
_BETWEEN = b",\n"
_TAIL = b"\n]}\n"
_BLOCK = 20_000  # objects formatted at once: about 40 MB of text, however many are handed over


def _properties(kind: ObjectClass | None) -> str:
    """Return what the properties of a class' objects begin with, without braces."""
    members: dict[str, object] = {"objectType": "detection"}
    if kind is not None:
        members["classification"] = {"name": kind.name, "color": [int(value) for value in kind.color]}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))[1:-1]


class GeoJSONSession:
    """A file being written under a temporary name in its own folder.

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
        self._path = path
        self._header = header
        self._names: tuple[str, ...] | None = None
        self._empty = True
        self._temporary = temporary_name(path)
        try:
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path}: can't be written: {error.strerror or error}")

    def _put(self, text: bytes) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            self.abort()
            raise self._failure(error) from error

    def _style(self, objects: Objects) -> FeatureStyle:
        names = tuple(objects.measurements)
        if self._names is None:
            self._names = names
        if names != self._names:
            raise ValueError(f"every object of a file has the same measurements: {self._names}, not {names}")
        return FeatureStyle(
            downsample=self._header.downsample,
            origin=self._header.origin,
            namespace=uuid.uuid5(uuid.NAMESPACE_URL, self._header.namespace).bytes,
            properties=tuple(_properties(kind) for kind in self._header.classes or (None,)),
            measurements=names,
        )

    def write(self, objects: Objects) -> None:
        """Append objects; calls come in canonical order.

        Raises
        ------
        OutputError
            If the disk is full or gone; the file is then aborted.
        ValueError
            If the objects' columns don't fit each other, a value is not finite, or the measurements have other names
            than before.
        """
        if self._file.closed:
            raise OutputError(f"{self._path}: is closed")
        style = self._style(objects)
        values = np.empty((len(objects), len(style.measurements)))
        for column, name in enumerate(style.measurements):
            values[:, column] = objects.measurements[name]
        for begin in range(0, len(objects), _BLOCK):
            text = feature_text(objects, values, style, begin, begin + _BLOCK)
            self._put(_HEAD if self._empty else _BETWEEN)
            self._put(text)
            self._empty = False

    def commit(self) -> None:
        """Finish: flush to disk, then give the file its final name and make that durable.

        Raises
        ------
        OutputError
            If the disk is full or the folder gone; nothing new bears the final name then.
        """
        if self._file.closed:
            raise OutputError(f"{self._path}: is closed")
        self._put(_HEAD + _TAIL if self._empty else _TAIL)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            self.abort()
            raise self._failure(error) from error

    def abort(self) -> None:
        """Remove what was written; nothing to do after `commit` or a second time."""
        with contextlib.suppress(OSError):  # what a full disk could not take need not be flushed
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class GeoJSONWriter:
    """Writes ``<slide>.geojson``."""

    suffix: ClassVar[str] = ".geojson"

    def open(self, path: Path, header: SlideHeader) -> GeoJSONSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return GeoJSONSession(path, header)
