"""Thumbnails and density maps as images inside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.report.axes import nice_step
from nuclix.engine.segmentation.summary import SlideSummary, density, smoothed
from nuclix.engine.slide.thumbnail import EDGE, encoded

# All thumbnails of a page together; with base64 and the density maps a page stays under about 30 MB.
BUDGET_BYTES = 16e6
SMALLEST_EDGE = 96
# JPEG at our quality, of tissue; a square picture is the worst case.
_BYTES_A_PIXEL = 0.25
# Steps of the density scale; more can't be told apart through a picture.
LEVELS = 32
# Share of the cells with nuclei that lie within the density scale.
_SCALE_SHARE = 0.99
# From sparse to dense: dark to bright, none of them a colour of haematoxylin and eosin, told apart by the colour-blind.
RAMP = ((59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_STRONG = 0.8  # opacity
# Opacity rises faster than density, so that sparse tissue shows, and background next to it does not.
_RISE = 0.6


def edge_for(count: int) -> int:
    """Return how large `count` thumbnails may be for the page to stay within its budget.

    >>> edge_for(12), edge_for(1000), edge_for(10**6)
    (512, 252, 96)
    """
    edge = math.floor(math.sqrt(BUDGET_BYTES / (max(1, count) * _BYTES_A_PIXEL)))
    return max(SMALLEST_EDGE, min(EDGE, edge))


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def read_thumbnail(path: Path, edge: int) -> Picture | None:
    """Return a thumbnail, or None where there is none that can be read.

    Parameters
    ----------
    path : Path
        The JPEG file that the run wrote.
    edge : int
        Maximum length of the longer edge in pixels; larger thumbnails are reduced.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            size = image.size
            if max(size) > edge:
                content = encoded(image, edge)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return Picture(_uri("image/jpeg", content), *size)


def jpeg_picture(pixels: NDArray[np.uint8]) -> Picture:
    """Return an (H, W, 3) image as JPEG."""
    from PIL import Image

    image = Image.fromarray(pixels)
    return Picture(_uri("image/jpeg", encoded(image, max(image.size))), *image.size)


def density_uri(summary: SlideSummary, top: float) -> str:
    """Return a density map as a data URI: a cell a pixel, clear where there is nothing.

    Parameters
    ----------
    summary : SlideSummary
        Of the slide.
    top : float
        Nuclei per mm2 that the strongest colour stands for.
    """
    from PIL import Image

    share = np.minimum(density(summary) / top, 1.0)
    image = Image.fromarray(np.rint(share * (LEVELS - 1)).astype(np.uint8))
    colors = np.rint(ramp(np.linspace(0.0, 1.0, LEVELS))).astype(np.uint8)
    alpha = _STRONG * np.linspace(0.0, 1.0, LEVELS) ** _RISE * 255
    image.putpalette(colors.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=alpha.astype(np.uint8).tobytes(), optimize=True)
    return _uri("image/png", buffer.getvalue())


def class_uri(summary: SlideSummary, colors: Sequence[tuple[int, int, int]], top: float) -> str:
    """Return a map of classes as a data URI: each cell has the colour of its most frequent class.

    Parameters
    ----------
    summary : SlideSummary
        Of the slide; empty text where it does not count classes.
    colors : sequence of tuple of int
        RGB of each class, in the model's order.
    top : float
        Nuclei per mm2 at which the colour is strongest; sparser cells are more transparent.
    """
    from PIL import Image

    if not len(summary.by_class) or len(colors) < len(summary.by_class):
        return ""
    maps = np.stack([smoothed(counts) for counts in summary.by_class])
    share = np.minimum(maps.sum(axis=0) / summary.cell_mm2 / top, 1.0)
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., :3] = np.array(colors, np.uint8)[maps.argmax(axis=0)]
    pixels[..., 3] = np.rint(_STRONG * share**_RISE * 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def ramp(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 3) colours of shares of the density scale, each 0..1."""
    places = np.linspace(0.0, 1.0, len(RAMP))
    return np.stack([np.interp(shares, places, channel) for channel in np.array(RAMP).T], axis=1)


def ramp_css() -> str:
    """Return the density scale as a CSS gradient."""
    return f"linear-gradient(90deg,{','.join(f'rgb{color}' for color in RAMP)})".replace(" ", "")


def density_top(summaries: Sequence[SlideSummary]) -> float:
    """Return a round end for a density scale that serves all slides; all but the densest cells lie within it."""
    found = [values[values > 0] for values in map(density, summaries)]
    cells = np.concatenate([np.zeros(0), *found])
    if not cells.size:
        return 1.0
    high = float(np.quantile(cells, _SCALE_SHARE))
    step = nice_step(high, 5)
    return math.ceil(high / step) * step


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
