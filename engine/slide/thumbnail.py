"""A small picture of a slide, made while it is open."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.tissue import Overview
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from PIL import Image

# The longer edge in pixels: fills a card of the report on a dense screen.
EDGE = 512
# Reading more of a level than this for a picture takes seconds; the overview that found the tissue is good enough.
DIRECT_PIXELS = 64 << 20
QUALITY = 80


def thumbnail(reader: SlideReader, overview: Overview | None) -> Image.Image:
    """Return a picture of what QuPath shows of a slide.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    overview : Overview or None
        The slide at low resolution, where it has been read already.

    Returns
    -------
    Image
        RGB, its longer edge at most `EDGE`; never larger than the slide.

    Raises
    ------
    SlideError
        If the slide's file is damaged.
    """
    from PIL import Image

    bounds = slide_bounds(reader.info)
    view = SlideView(reader, Scale(max(1.0, max(bounds.shape) / EDGE)), Scale(1.0))
    level = reader.info.levels[view.level]
    if overview is not None and level.height * level.width > DIRECT_PIXELS:
        pixels = _cut(overview.pixels, bounds, overview.downsample)
    else:
        pixels = view.read(_scaled(bounds, view.downsample))
    image = Image.fromarray(pixels)
    image.thumbnail((EDGE, EDGE), Image.Resampling.BOX)
    return image


def _scaled(box: Box, downsample: float) -> Box:
    """Return a box of level 0 in pixels of `downsample` level-0 pixels; at least one."""
    row, col = math.floor(box.row / downsample), math.floor(box.col / downsample)
    row_end, col_end = math.ceil(box.row_end / downsample), math.ceil(box.col_end / downsample)
    return Box.between(row, col, max(row + 1, row_end), max(col + 1, col_end))


def _cut(pixels: NDArray[np.uint8], box: Box, downsample: float) -> NDArray[np.uint8]:
    inside = _scaled(box, downsample).intersect(Box(0, 0, *pixels.shape[:2]))
    return np.ascontiguousarray(pixels[inside.slices()]) if inside.area else pixels


def write_thumbnail(path: Path, image: Image.Image) -> None:
    """Save a thumbnail as JPEG.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    try:
        replace_file(path, encoded(image), durable=False)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def encoded(image: Image.Image, edge: int = EDGE) -> bytes:
    """Return a picture as JPEG, made smaller where its longer edge is over `edge`."""
    from PIL import Image

    if max(image.size) > edge:
        image = image.copy()
        image.thumbnail((edge, edge), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
