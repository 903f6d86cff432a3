"""One slide in the viewer: its tiles, its nuclei by tile, and the measurements of one nucleus."""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.report.field_pictures import css_color
from nuclix.engine.segmentation.object_index import (
    BlockIndex,
    BlockIndexBuilder,
    indexed_blocks,
    object_boxes,
)
from nuclix.engine.segmentation.objects import PROBABILITY, Objects, take
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.slide.view import SlideView
from nuclix.engine.viewer.geometry import TILE, TilePyramid

# Pixels of the objects' coordinates along a tile of outlines: some hundred nuclei.
OUTLINE_TILE = 512
# Outlines are sent as whole numbers of this share of a pixel of the objects' coordinates.
OUTLINE_UNITS = 8
# More nuclei than this in one tile are noise; the browser is not asked to draw them.
MAX_IN_TILE = 20_000
# A tile that would need a larger square of the slide is cut from the thumbnail: slides without a pyramid.
MAX_SOURCE_PX = 8192
BLOCKS_KEPT = 48  # of some thousand objects: 100 MB
DENSITY_EDGE = 768  # cells of the density map along its longer edge
MIN_DENSITY_CELL_UM = 20.0
QUALITY = 85
_UNKNOWN_MPP = 0.25


class SlideSession:
    """A slide and its nuclei while they are looked at; safe from several threads.

    Parameters
    ----------
    store : ObjectStore
        The objects; closed with the session.
    reader : SlideReader or None
        The slide, where it can be read; closed with the session.
    shape : (int, int)
        Height and width that are shown, in level-0 pixels.
    thumbnail : Path
        A picture of the whole slide, which need not exist.
    """

    def __init__(self, store: ObjectStore, reader: SlideReader | None, shape: tuple[int, int], thumbnail: Path) -> None:
        self.store = store
        self.reader = reader
        self.header = store.slide.header
        row, col = (int(value) for value in self.header.origin)
        self.pyramid = TilePyramid(Box(row, col, *shape))
        self._thumbnail = thumbnail
        self._lock = threading.Lock()
        self._found: tuple[BlockIndex, NDArray[np.int64]] | None = None
        self._block = functools.lru_cache(maxsize=BLOCKS_KEPT)(self._read_block)

    def close(self) -> None:
        """Close slide and objects."""
        if self.reader is not None:
            self.reader.close()
        self.store.close()

    # Image ---------------------------------------------------------------------------------------------------------

    def tile(self, level: int, col: int, row: int) -> bytes | None:
        """Return a tile of the slide as JPEG; None if there is no such tile.

        Raises
        ------
        SlideError
            If the slide can't be read there.
        """
        from PIL import Image

        box = self.pyramid.tile(level, col, row)
        if box is None:
            return None
        if self.reader is None:
            raise SlideError("the slide can't be read")
        view = SlideView(self.reader, Scale(float(self.pyramid.downsample(level))), Scale(1.0))
        if view.factor * TILE > MAX_SOURCE_PX:
            image = self._from_thumbnail(level, box)
        else:
            image = Image.fromarray(view.read(self.pyramid.source(level, box)))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()

    def _from_thumbnail(self, level: int, box: Box) -> Any:
        from PIL import Image

        try:
            with Image.open(self._thumbnail, formats=("JPEG",)) as picture:
                step = self.pyramid.downsample(level)
                rows, cols = (part / whole for part, whole in zip(picture.size[::-1], self._shape, strict=True))
                place = (box.col * step * cols, box.row * step * rows, box.col_end * step * cols,
                         box.row_end * step * rows)  # fmt: skip
                area = (*place[:2], min(place[2], picture.width), min(place[3], picture.height))
                return picture.convert("RGB").resize((box.width, box.height), Image.Resampling.BILINEAR, box=area)
        except (OSError, ValueError):
            return Image.new("RGB", (box.width, box.height), (238, 236, 240))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.pyramid.bounds.shape

    # Nuclei --------------------------------------------------------------------------------------------------------

    def _read_block(self, number: int) -> tuple[Objects, NDArray[np.int64]]:
        """Return a block of objects, and the row and column of the tile of outlines that each belongs to."""
        objects = self.store.read_block(number)
        return objects, self._tiles_of(object_boxes(objects))

    def _tiles_of(self, boxes: NDArray[np.float64]) -> NDArray[np.int64]:
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        return np.floor((middles - self._corner) / OUTLINE_TILE).astype(np.int64)

    @property
    def _corner(self) -> NDArray[np.float64]:
        return np.array(self.header.origin, np.float64) / self.header.downsample

    @property
    def _mpp(self) -> float:
        return (self.header.mpp or _UNKNOWN_MPP) * self.header.downsample

    def _index(self) -> tuple[BlockIndex, NDArray[np.int64]]:
        """Return where the blocks lie, and the density map; found at the first call."""
        with self._lock:
            if self._found is None:
                self._found = self._read_all()
            return self._found

    def _read_all(self) -> tuple[BlockIndex, NDArray[np.int64]]:
        builder = BlockIndexBuilder()
        extent = np.array(self._shape) / self.header.downsample
        cell = max(float(extent.max()) / DENSITY_EDGE, MIN_DENSITY_CELL_UM / self._mpp)
        rows, cols = (max(1, math.ceil(length / cell)) for length in extent)
        kinds = max(1, len(self.header.classes))
        counts = np.zeros(kinds * rows * cols, np.int64)
        for objects, boxes in indexed_blocks(self.store, builder):
            place = (((boxes[:, :2] + boxes[:, 2:]) / 2 - self._corner) / cell).astype(np.int64)
            row, col = np.clip(place, 0, (rows - 1, cols - 1)).T
            kind = np.clip(objects.classes, 0, kinds - 1).astype(np.int64)
            counts += np.bincount((kind * rows + row) * cols + col, minlength=len(counts))
        return builder.result(), counts.reshape(kinds, rows, cols)

    def outlines(self, col: int, row: int) -> dict[str, Any]:
        """Return the nuclei of a tile of outlines.

        Parameters
        ----------
        col, row : int
            Of the tile: `OUTLINE_TILE` pixels of the objects' coordinates from the corner that is shown.

        Returns
        -------
        dict
            ``nuclei``: for each its number on the slide, class, score (or None) and rings, each a flat list of x and y
            relative to the tile's corner in 1 / `OUTLINE_UNITS` px; ``left_out``: those beyond `MAX_IN_TILE`.

        Raises
        ------
        DataError
            If the stored objects are damaged.
        """
        index, _ = self._index()
        low = self._corner + np.array([row, col]) * OUTLINE_TILE
        wanted = np.concatenate([low, low + OUTLINE_TILE])
        found: list[Any] = []
        left_out = 0
        for number in index.blocks_touching(wanted).tolist():
            objects, tiles = self._block(number)
            inside = np.flatnonzero((tiles == (row, col)).all(axis=1))
            room = MAX_IN_TILE - len(found)
            left_out += max(0, len(inside) - room)
            numbers = int(index.starts[number]) + inside[:room]
            found += _as_lists(take(objects, inside[:room]), numbers, low)
        return {"nuclei": found, "left_out": left_out}

    def nucleus(self, number: int) -> dict[str, Any]:
        """Return class and measurements of a nucleus.

        Raises
        ------
        IndexError
            If there is none of this number.
        DataError
            If the stored objects are damaged.
        """
        index, _ = self._index()
        block, place = index.block_of(number)
        objects, _ = self._block(block)
        kind = int(objects.classes[place])
        box = object_boxes(take(objects, np.array([place])))[0]
        row, col = ((box[:2] + box[2:]) / 2 - self._corner) * self.header.downsample
        values = {name: float(column[place]) for name, column in objects.measurements.items()}
        return {
            "number": number,
            "class": self.header.classes[kind].name if kind < len(self.header.classes) else "",
            "x": round(float(col), 1),
            "y": round(float(row), 1),
            "measurements": {name: value for name, value in values.items() if math.isfinite(value)},
        }

    def density(self) -> tuple[bytes, float]:
        """Return a map of nuclei as PNG, grey for the share of its densest cell, and the density of that cell per mm2.

        Raises
        ------
        DataError
            If the stored objects are damaged.
        """
        from PIL import Image

        from nuclix.engine.report.pictures import ramp
        from nuclix.engine.segmentation.summary import smoothed

        _, counts = self._index()
        total = smoothed(counts.sum(axis=0))
        seen = total[total > 0]
        top = float(np.quantile(seen, 0.99)) if seen.size else 1.0
        share = np.minimum(total / top, 1.0)
        pixels = np.zeros((*share.shape, 4), np.uint8)
        if len(counts) > 1:
            colors = np.array([item.color for item in self.header.classes], np.uint8)[:, :3]
            pixels[..., :3] = colors[np.stack([smoothed(one) for one in counts]).argmax(axis=0)]
        else:
            pixels[..., :3] = np.rint(ramp(share.ravel())).reshape(*share.shape, 3)
        pixels[..., 3] = np.rint(255 * 0.85 * share**0.6)
        buffer = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(buffer, "PNG")
        extent = np.array(self._shape) / self.header.downsample * self._mpp
        cell_mm2 = float((extent / np.array(total.shape)).prod()) / 1e6
        return buffer.getvalue(), top / cell_mm2

    def facts(self) -> dict[str, Any]:
        """Return what the browser must know of the slide."""
        height, width = self._shape
        return {
            "width": width,
            "height": height,
            "tile": TILE,
            "max_level": self.pyramid.max_level,
            "mpp": self.header.mpp,
            "downsample": self.header.downsample,
            "outline_tile": OUTLINE_TILE,
            "outline_units": OUTLINE_UNITS,
            "nuclei": len(self.store),
            "classes": [{"name": item.name, "color": css_color(item.color)} for item in self.header.classes],
            "counts": self._counts(),
        }

    def _counts(self) -> list[int]:
        """Return the number of nuclei of each class, as the record has it."""
        by_class: Mapping[str, int] = dict(self.store.slide.record.get("counts", {})).get("nuclei_by_class", {})
        names = [item.name for item in self.header.classes]
        return [int(by_class.get(name, len(self.store) if len(names) == 1 else 0)) for name in names]


def _as_lists(objects: Objects, numbers: NDArray[np.int64], corner: NDArray[np.float64]) -> list[Any]:
    """Return objects as JSON values, relative to a corner."""
    places = np.rint((objects.corners.astype(np.float64) - corner)[:, ::-1] * OUTLINE_UNITS).astype(np.int64)
    flat = places.ravel().tolist()
    offsets, rings = (2 * objects.offsets).tolist(), objects.rings.tolist()
    scores = objects.measurements.get(PROBABILITY)
    shown = np.full(len(objects), np.nan) if scores is None else scores
    found = []
    for place, (number, kind, score) in enumerate(
        zip(numbers.tolist(), objects.classes.tolist(), shown.tolist(), strict=True)
    ):
        outline = [flat[offsets[ring] : offsets[ring + 1]] for ring in range(rings[place], rings[place + 1])]
        found.append([number, kind, round(score, 3) if math.isfinite(score) else None, outline])
    return found
