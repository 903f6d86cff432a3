"""Sample fields of a slide as pictures with outlines, for a self-contained page."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader, SlideReader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.report.fields import Field
from nuclix.engine.report.pictures import Picture, jpeg_picture
from nuclix.engine.report.slide_scan import SlideScan
from nuclix.engine.segmentation.object_index import object_boxes, touching
from nuclix.engine.segmentation.objects import Objects, take
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.slide.view import SlideView

# A field's picture: about so many pixels along its edge.
FIELD_PX = 400
# Outlines are written as whole numbers of this share of a picture's pixel.
_UNITS = 10
# More outlines than this in one field are noise, and would make the page large.
MAX_OUTLINES = 2000


@dataclass(frozen=True, slots=True)
class FieldPicture:
    """A field as the page shows it.

    Attributes
    ----------
    field : Field
        What was chosen.
    box : Box
        What is shown, in level-0 pixels.
    picture : Picture or None
        The tissue; None where the slide can't be read.
    paths : tuple of (str, str)
        For each class that has outlines: its colour as CSS has it, and an SVG path.
    view_box : str
        Of the SVG.
    left_out : int
        Outlines beyond `MAX_OUTLINES`.
    """

    field: Field
    box: Box
    picture: Picture | None
    paths: tuple[tuple[str, str], ...]
    view_box: str
    left_out: int


def css_color(color: Sequence[int]) -> str:
    """Return a colour as CSS has it.

    >>> css_color((1, 20, 255))
    '#0114ff'
    """
    return "#" + "".join(f"{min(max(int(value), 0), 255):02x}" for value in color[:3])


def field_pictures(
    store: ObjectStore, scan: SlideScan, fields: Sequence[Field], reader: SlideReader | None
) -> tuple[FieldPicture, ...]:
    """Return the pictures of fields; only blocks of objects that touch one are read, each once.

    Parameters
    ----------
    store : ObjectStore
        The slide's objects.
    scan : SlideScan
        Of this store.
    fields : sequence of Field
        What to show.
    reader : SlideReader or None
        The open slide, or None to draw the outlines alone.

    Returns
    -------
    tuple of FieldPicture

    Raises
    ------
    DataError
        If the store is damaged.
    SlideError
        If the slide is damaged.
    """
    header = store.slide.header
    frames = [_frame(item, header) for item in fields]
    blocks = sorted({int(block) for item in fields for block in scan.index.blocks_touching(item.box)})
    for number in blocks:
        objects = store.read_block(number)
        boxes = object_boxes(objects)
        for frame in frames:
            inside = np.flatnonzero(touching(boxes, frame.field.box))
            if len(inside):
                frame.add(take(objects, inside))
    return tuple(frame.result(header, reader) for frame in frames)


@dataclass(slots=True)
class _Frame:
    """A field while its outlines are collected; `downsample` is level-0 pixels along a pixel of the picture."""

    field: Field
    box: Box
    downsample: float
    scale: float
    paths: dict[int, list[str]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    drawn: int = 0
    left_out: int = 0

    def add(self, objects: Objects) -> None:
        """Add outlines of objects at the model's scale."""
        room = max(0, MAX_OUTLINES - self.drawn)
        self.left_out += max(0, len(objects) - room)
        for number in range(min(room, len(objects))):
            rings = objects.offsets[objects.rings[number] : objects.rings[number + 1] + 1]
            for start, stop in pairwise(rings.tolist()):
                self.paths[int(objects.classes[number])].append(self._ring(objects.corners[start:stop]))
        self.drawn += min(room, len(objects))

    def _ring(self, corners: NDArray[np.float32]) -> str:
        places = (corners.astype(np.float64) * self.scale - (self.box.row, self.box.col)) / self.downsample
        whole = np.rint(places[:, ::-1] * _UNITS).astype(np.int64)
        steps = " ".join(map(str, np.diff(whole, axis=0).ravel().tolist()))
        return f"M{whole[0, 0]} {whole[0, 1]}l{steps}z"

    def result(self, header: SlideHeader, reader: SlideReader | None) -> FieldPicture:
        """Return the finished picture."""
        height, width = (max(1, math.ceil(length / self.downsample)) for length in self.box.shape)
        picture = None
        if reader is not None:
            view = SlideView(reader, Scale(self.downsample), Scale(1.0))
            row, col = (round(place / self.downsample) for place in (self.box.row, self.box.col))
            picture = jpeg_picture(view.read(Box(row, col, height, width)))
        colors = [css_color(item.color) for item in header.classes]
        paths = tuple(
            (colors[min(kind, len(colors) - 1)] if colors else "#00c000", "".join(rings))
            for kind, rings in sorted(self.paths.items())
        )
        size = f"0 0 {width * _UNITS} {height * _UNITS}"
        return FieldPicture(self.field, self.box, picture, paths, size, self.left_out)


def _frame(item: Field, header: SlideHeader) -> _Frame:
    """Return the frame of a field: whole pixels of the picture, which may reach over the slide's edge."""
    low, high = item.box[:2] * header.downsample, item.box[2:] * header.downsample
    downsample = float(max(1, round(float((high - low).max()) / FIELD_PX)))
    step = int(downsample)
    row, col = (math.floor(place / step) * step for place in low)
    height, width = (math.ceil(length / step) * step for length in high - low)
    return _Frame(item, Box(row, col, height, width), downsample, header.downsample)
