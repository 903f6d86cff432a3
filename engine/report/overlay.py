"""A picture to look at: the outlines of a written file drawn on the slide that they were found on."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideInfo, SlideReader
from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.geojson_file import polygons_of, read_features
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from PIL import Image

# For objects without a class: bright, and nowhere near the hues of haematoxylin, eosin or background.
UNCLASSIFIED = (0, 255, 0)
PLANE = 2  # dimensions of a corner: (x, y); GeoJSON allows a third, the elevation


@dataclass(frozen=True, slots=True)
class Window:
    """What to show of a slide, and how large.

    Attributes
    ----------
    box : Box
        In level-0 pixels.
    downsample : float
        Level-0 pixels along one pixel of the picture; within 5 % of a whole number, that number is taken.
    """

    box: Box
    downsample: float = 1.0

    @classmethod
    def of_slide(cls, info: SlideInfo, edge: int) -> Window:
        """Show all that QuPath shows of a slide, its longer edge at most `edge` pixels of the picture."""
        return cls.of_box(slide_bounds(info), edge)

    @classmethod
    def of_box(cls, box: Box, edge: int) -> Window:
        """Show a box of level 0, its longer edge at most `edge` pixels of the picture."""
        return cls(box, max(1.0, math.ceil(max(box.shape) / edge)))


def write_overlay(reader: SlideReader, geojson: Path, target: Path, window: Window) -> None:
    """Draw the outlines of `geojson` on the slide and save the picture.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    geojson : Path
        A file that nuclix wrote for it (``.geojson``, ``.geojson.gz`` or ``.zip``).
    target : Path
        The picture; its suffix (``.png``, ``.jpg``) says the format.
    window : Window
        What to show.

    Raises
    ------
    DataError
        If `geojson` can't be read.
    SlideError
        If the slide can't be read there.
    OutputError
        If the picture can't be written.
    """
    save_picture(draw_overlay(reader, geojson, window), target)


def save_picture(image: Image.Image, target: Path) -> None:
    """Save a picture in the format of its suffix; a picture that existed stays until the new one is complete.

    Raises
    ------
    OutputError
        If it can't be written, or its suffix names no format of pictures.
    """
    from PIL import Image

    kind = Image.registered_extensions().get(target.suffix.lower())
    buffer = io.BytesIO()
    try:
        if kind not in Image.SAVE:
            raise ValueError(f"{target.suffix or 'no suffix'}: unknown picture format; use .png")
        image.save(buffer, kind)
        replace_file(target, buffer.getvalue())
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: the picture can't be written ({error})") from error


def draw_overlay(reader: SlideReader, geojson: Path, window: Window) -> Image.Image:
    """Return the picture that `write_overlay` saves, of about ``window.box.shape / window.downsample`` pixels."""
    return draw_outlines(reader, outlines(geojson), window)


def draw_outlines(
    reader: SlideReader,
    rings: Iterable[tuple[NDArray[np.float64], tuple[int, int, int]]],
    window: Window,
    width: int = 1,
) -> Image.Image:
    """Draw rings with their colours on a slide.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    rings : iterable of ((V, 2) float64, tuple of int)
        As `outlines` yields them.
    window : Window
        What to show.
    width : int
        Of the lines, in pixels of the picture.

    Returns
    -------
    Image
        RGB, of about ``window.box.shape / window.downsample`` pixels.
    """
    from PIL import Image, ImageDraw

    view = SlideView(reader, Scale(window.downsample), Scale(1.0))
    downsample = view.downsample
    box = window.box
    seen = Box.between(
        math.floor(box.row / downsample),
        math.floor(box.col / downsample),
        math.ceil(box.row_end / downsample),
        math.ceil(box.col_end / downsample),
    )
    image = Image.fromarray(view.read(seen))
    draw = ImageDraw.Draw(image)
    bounds = slide_bounds(reader.info)
    shift = np.array([bounds.col, bounds.row], np.float64)
    corner = np.array([seen.col, seen.row], np.float64)
    size = np.array([seen.width, seen.height], np.float64)
    for ring, color in rings:
        # A corner falls on the pixel to its lower right: floored here, since PIL cuts towards zero.
        drawn = np.floor((ring + shift) / downsample - corner)
        if (drawn.max(axis=0) >= 0).all() and (drawn.min(axis=0) <= size).all():
            draw.line(drawn.ravel().tolist(), fill=color, width=width)
    return image


def outlines(geojson: Path) -> Iterator[tuple[NDArray[np.float64], tuple[int, int, int]]]:
    """Yield every ring of a GeoJSON file with its object's colour.

    Parameters
    ----------
    geojson : Path
        Polygons and multi-polygons as a FeatureCollection or a list of features; plain, gzipped (``.gz``) or a zip of
        ``.geojson`` files (``.zip``).

    Yields
    ------
    ring : (V, 2) float64
        Closed, (x, y) in level-0 pixels from the corner of the slide's bounds.
    color : tuple of int
        RGB of the object's class.

    Raises
    ------
    DataError
        If the file can't be read or is not such a collection.
    """
    for number, feature in enumerate(read_features(geojson), 1):
        try:
            color = _color(feature.get("properties") or {})
            polygons = _polygons(feature["geometry"])
            rings = [np.array(corners, np.float64) for polygon in polygons for corners in polygon]
            checked = [_checked(ring) for ring in rings if ring.size]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{geojson}: feature {number} has no outline ({type(error).__name__}: {error})") from error
        yield from ((ring, color) for ring in checked)


def _checked(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (x, y) of a ring's corners, which may have an elevation too."""
    if ring.ndim != PLANE or ring.shape[1] < PLANE or not np.isfinite(ring).all():
        raise ValueError("a ring is no list of finite corners")
    return ring[:, :PLANE]


def _polygons(geometry: dict[str, Any]) -> list[list[Any]]:
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {geometry['type']} has no outline")
    return polygons_of(geometry)


def _color(properties: dict[str, Any]) -> tuple[int, int, int]:
    """Return the colour of a feature's class; QuPath also writes a class as its name alone."""
    kind = properties.get("classification")
    red, green, blue = (kind.get("color") if isinstance(kind, dict) else None) or UNCLASSIFIED
    return int(red), int(green), int(blue)
