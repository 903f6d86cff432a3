"""A picture to look at: the outlines of a written file drawn on the slide that they were found on."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideInfo, SlideReader
from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from PIL import Image

# For objects without a class: bright, and nowhere near the hues of haematoxylin, eosin or glass.
UNCLASSIFIED = (0, 255, 0)


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
        box = slide_bounds(info)
        return cls(box, max(1.0, math.ceil(max(box.shape) / edge)))


def write_overlay(reader: SlideReader, geojson: Path, target: Path, window: Window) -> None:
    """Draw the outlines of `geojson` on the slide and save the picture.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    geojson : Path
        A file that nuclix wrote for it (``.geojson`` or ``.geojson.gz``).
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
    image = draw_overlay(reader, geojson, window)
    try:
        image.save(target)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: the overlay can't be written ({error})") from error


def draw_overlay(reader: SlideReader, geojson: Path, window: Window) -> Image.Image:
    """Return the picture that `write_overlay` saves, of about ``window.box.shape / window.downsample`` pixels."""
    return draw_outlines(reader, outlines(geojson), window)


def draw_outlines(
    reader: SlideReader, rings: Iterable[tuple[NDArray[np.float64], tuple[int, int, int]]], window: Window
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
            draw.line(drawn.ravel().tolist(), fill=color)
    return image


def outlines(geojson: Path) -> Iterator[tuple[NDArray[np.float64], tuple[int, int, int]]]:
    """Yield every ring of a GeoJSON file with its object's colour.

    Parameters
    ----------
    geojson : Path
        A FeatureCollection of polygons and multi-polygons, possibly gzipped.

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
    try:
        raw = geojson.read_bytes()
        features = json.loads(gzip.decompress(raw) if geojson.suffix == ".gz" else raw)["features"]
        for feature in features:
            color = _color(feature["properties"])
            for polygon in _polygons(feature["geometry"]):
                for ring in polygon:
                    yield np.array(ring, np.float64).reshape(-1, 2), color
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{geojson}: no GeoJSON of outlines ({type(error).__name__}: {error})") from error


def _polygons(geometry: dict[str, Any]) -> list[Any]:
    if geometry["type"] == "Polygon":
        return [geometry["coordinates"]]
    if geometry["type"] == "MultiPolygon":
        return list(geometry["coordinates"])
    raise ValueError(f"a {geometry['type']} has no outline")


def _color(properties: dict[str, Any]) -> tuple[int, int, int]:
    red, green, blue = properties.get("classification", {}).get("color", UNCLASSIFIED)
    return int(red), int(green), int(blue)
