"""Nuclei as a label image: a tiled OME-TIFF pyramid of uint32 at the model's scale."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.objects import Objects, take
from nuclix.plugins.writers._label_canvas import WINDOW, LabelCanvas
from nuclix.plugins.writers._session import FileSession

TILE = 512  # pixels along a tile of the file
SMALLEST_LEVEL = 1024  # the pyramid ends where the longer edge is at most this
_ROUNDING = 1e-6  # a pixel count this little over a whole number is that number


class LabelImageSession(FileSession):
    """A label image being written.

    Parameters
    ----------
    path : Path
        The final name.
    header : SlideHeader
        The slide, with its size.

    Raises
    ------
    OutputError
        If the folder can't be written.
    ValueError
        If the slide's size is not known.
    """

    def __init__(self, path: Path, header: SlideHeader) -> None:
        if not all(header.shape):
            raise ValueError("a label image needs the size of the slide")
        height, width = (math.ceil(edge / header.downsample - _ROUNDING) for edge in header.shape)
        super().__init__(path, header)
        self._count = 0
        self._canvases: list[LabelCanvas] = []
        with self._aborting():
            self._canvases.append(LabelCanvas((height, width), path.parent))

    def _append(self, objects: Objects) -> None:
        with self._aborting():
            if len(objects):
                self._draw(objects)
        self._count += len(objects)

    def _draw(self, objects: Objects) -> None:
        """Draw objects, window by window; a pixel that several nuclei claim goes to the first."""
        from nuclix.ext.raster import fill_polygons

        canvas, header = self._canvases[0], self._header
        corners = objects.corners - np.array(header.origin) / header.downsample
        starts = objects.offsets[objects.rings[:-1]]
        low = np.floor(np.minimum.reduceat(corners, starts) / WINDOW).astype(int)
        high = np.floor(np.maximum.reduceat(corners, starts) / WINDOW).astype(int)
        last = (np.array(canvas.shape) - 1) // WINDOW
        low, high = np.clip(low, 0, last), np.clip(high, 0, last)
        windows = {(row, col) for a, b in zip(low, high, strict=True) for row, col in _between(a, b)}
        for row, col in sorted(windows):
            inside = ((low <= (row, col)) & (high >= (row, col))).all(axis=1)
            index = np.flatnonzero(inside)
            part = take(objects, index)
            shells = np.append(np.flatnonzero(part.shells), len(part.shells))
            numbers = np.repeat(index, np.add.reduceat(part.shells.astype(int), part.rings[:-1])) + 1
            local = part.corners - np.array(header.origin) / header.downsample - np.array([row, col]) * WINDOW
            shape = tuple(
                min(WINDOW, edge - place * WINDOW) for edge, place in zip(canvas.shape, (row, col), strict=True)
            )
            drawn = fill_polygons((shape[0], shape[1]), local, part.offsets, shells, numbers)
            window = canvas.window(row, col, draw=True)[: shape[0], : shape[1]]
            window[...] = np.where((drawn > 0) & (window == 0), drawn + np.uint32(self._count), window)

    def _finish(self) -> None:
        while max(self._canvases[-1].shape) > SMALLEST_LEVEL:
            self._canvases.append(self._canvases[-1].halved())
        self._write_pyramid()

    def _write_pyramid(self) -> None:
        import tifffile

        first, *others = self._canvases
        options: dict[str, Any] = {
            "dtype": np.uint32,
            "tile": (TILE, TILE),
            "compression": "zlib",
            "photometric": "minisblack",
            "maxworkers": 1,
            "software": False,
        }
        with tifffile.TiffWriter(self._pending.file, bigtiff=True, ome=True) as tiff:
            tiff.write(_tiles(first), shape=first.shape, subifds=len(others), metadata=self._metadata(), **options)
            for canvas in others:
                tiff.write(_tiles(canvas), shape=canvas.shape, subfiletype=1, metadata=None, **options)

    def _metadata(self) -> dict[str, Any]:
        header = self._header
        facts: dict[str, Any] = {
            "axes": "YX",
            "Name": header.name,
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, header.namespace)),
        }
        if header.mpp is not None:
            for axis in "XY":
                facts[f"PhysicalSize{axis}"] = header.mpp * header.downsample
                facts[f"PhysicalSize{axis}Unit"] = "µm"
        return facts

    def _release(self) -> None:
        for canvas in self._canvases:
            canvas.close()


def _between(low: NDArray[np.int_], high: NDArray[np.int_]) -> list[tuple[int, int]]:
    """Return the windows from one to another, both included."""
    return [(row, col) for row in range(low[0], high[0] + 1) for col in range(low[1], high[1] + 1)]


def _tiles(canvas: LabelCanvas) -> Iterator[NDArray[np.uint32]]:
    """Yield the tiles of an image in the order of the file: row by row."""
    for row in range(0, canvas.shape[0], TILE):
        for column in range(0, canvas.shape[1], TILE):
            yield np.ascontiguousarray(canvas.tile(row, column, TILE))


class LabelImageWriter:
    """Writes ``<slide>-labels.ome.tif``: nucleus k of the other formats has the label k."""

    suffix: ClassVar[str] = "-labels.ome.tif"

    def open(self, path: Path, header: SlideHeader) -> LabelImageSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return LabelImageSession(path, header)
