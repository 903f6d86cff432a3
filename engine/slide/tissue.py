"""Find tissue at low resolution; background is not computed.

Tissue is coloured or dark; background is neither. Otsu's thresholds of saturation and value tell them apart where
a slide has both. Where it has one of them only, Otsu would split that, so the thresholds are held to ranges in which
they can lie. A pixel too many costs a little time, one too few costs nuclei: what is in doubt is tissue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.view import SlideView

_STRIP = 64  # rows of an overview that are read at a time: some 2,000 rows of a slide at 0.25 um/px
_CHUNK = 1 << 20  # values that are counted at a time
TISSUE_SCALE = Scale(8.0)  # about a nucleus to the pixel: one nucleus alone on background still colours its pixel
# The ranges that Otsu's thresholds are kept to, of 255. Background has a saturation of up to about 0.05 (a tinge that
# the scanner's white balance leaves) and a value above 210; pale stroma and mucin begin at a saturation of 0.06. Value
# matters for grey pictures, which have no saturation.
SATURATION = (13, 16)
VALUE = (190, 210)
BLACK = 20  # a value below this is a border, a gap between scanned regions, or a felt pen
DILATION = 2  # pixels: nuclei on the rim of tissue and pale gaps within it


@dataclass(frozen=True, slots=True)
class TissueMask:
    """A low-resolution mask of tissue.

    Attributes
    ----------
    mask : (height, width) bool
        Tissue, slightly dilated.
    downsample : float
        Pixels at the model's scale along one of the mask.
    area_mm2 : float
        Area of the tissue before dilation.
    """

    mask: NDArray[np.bool_]
    downsample: float
    area_mm2: float

    def within(self, box: Box, reach: int) -> Box | None:
        """Return the smallest box that holds all pixels of `box` no further than `reach` from tissue; None without any.

        Parameters
        ----------
        box : Box
            In pixels at the model's scale.
        reach : int
            Chessboard distance in pixels.
        """
        around = box.expand(reach)
        row, col = (max(0, math.floor(start / self.downsample)) for start in (around.row, around.col))
        row_end, col_end = (max(0, math.ceil(end / self.downsample)) for end in (around.row_end, around.col_end))
        tissue = self.mask[row:row_end, col:col_end]
        rows, cols = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
        if not len(rows):
            return None
        first = (math.floor((start + found[0]) * self.downsample) for start, found in ((row, rows), (col, cols)))
        last = (math.ceil((start + found[-1] + 1) * self.downsample) for start, found in ((row, rows), (col, cols)))
        near = Box.between(*first, *last).expand(reach).intersect(box)
        return near if near.area else None


@dataclass(frozen=True, slots=True)
class Overview:
    """A whole slide at low resolution.

    Attributes
    ----------
    pixels : (height, width, 3) uint8
        RGB.
    downsample : float
        Level-0 pixels along one of it.
    scale : Scale
        The size of its pixels.
    """

    pixels: NDArray[np.uint8]
    downsample: float
    scale: Scale


def read_overview(reader: SlideReader, view: SlideView, between: Callable[[], None] = lambda: None) -> Overview:
    """Read a slide at the scale at which tissue is looked for.

    Parameters
    ----------
    reader : SlideReader
        The open slide. A slide of one level is read whole, a strip at a time.
    view : SlideView
        The slide at the model's scale.
    between : callable
        Is called between two strips; may raise to give up: a large slide of one level takes minutes.

    Raises
    ------
    SlideError
        If the slide's file is damaged.
    """
    low = tissue_view(reader, view)
    pixels = np.empty((low.height, low.width, 3), np.uint8)
    for row in range(0, low.height, _STRIP):
        if row:
            between()
        box = Box(row, 0, min(_STRIP, low.height - row), low.width)
        pixels[row : row + box.height] = low.read(box)
    return Overview(pixels, low.downsample, low.scale)


def tissue_view(reader: SlideReader, view: SlideView) -> SlideView:
    """Return a slide at the scale at which tissue is looked for: `TISSUE_SCALE`, or its own where that is coarser."""
    base = Scale(view.scale.mpp / view.downsample)
    return SlideView(reader, max(TISSUE_SCALE, base, key=lambda scale: scale.mpp), base)


def tissue_mask(reader: SlideReader, view: SlideView, overview: Overview | None = None) -> TissueMask:
    """Find a slide's tissue.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    view : SlideView
        The slide at the model's scale, for the coordinates of `TissueMask.within`.
    overview : Overview, optional
        From `read_overview`, if it has been read already.

    Returns
    -------
    TissueMask

    Raises
    ------
    SlideError
        If the slide's file is damaged.
    """
    low = overview or read_overview(reader, view)
    mask = _tissue(low.pixels)
    area = float(mask.sum()) * low.scale.mpp**2 / 1e6
    return TissueMask(_dilated(mask, DILATION), low.downsample / view.downsample, area)


def _tissue(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mask of tissue of a (height, width, 3) RGB image."""
    value, chroma = value_and_chroma(image)
    saturation = np.empty_like(value)
    for row in range(
        0, len(value), _STRIP
    ):  # wider numbers for a strip at a time: the overview of a large slide is large
        rows = slice(row, row + _STRIP)
        saturation[rows] = chroma[rows].astype(np.uint16) * 255 // np.maximum(value[rows], 1)
    lit = value >= BLACK
    coloured = saturation > np.clip(otsu_threshold(saturation[lit]), *SATURATION)
    dark = value < np.clip(otsu_threshold(value[lit]), *VALUE)
    return lit & (coloured | dark)


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """Return the value v that best parts values up to v from those above (Otsu 1979, eq. 18); 0 for no values.

    Parameters
    ----------
    values : uint8 array
        Of any shape.

    Returns
    -------
    int
        0 to 255.
    """
    if not values.size:
        return 0
    flat, counts = values.reshape(-1), np.zeros(256, np.int64)
    for start in range(0, flat.size, _CHUNK):  # `bincount` takes eight bytes a value
        counts += np.bincount(flat[start : start + _CHUNK], minlength=256)
    present = np.flatnonzero(counts)
    levels = np.arange(present[0], present[-1] + 1)
    return int(levels[np.argmax(_variance_between(counts[levels], levels))]) if len(levels) > 1 else int(levels[0])


def _variance_between(counts: NDArray[np.int64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the variance between the classes for every level but the last as the threshold, up to a factor.

    In the number formats of `skimage.filters.threshold_otsu`, which decide between thresholds that are equally good.
    That function is not called because importing it takes longer than finding the tissue of a small slide.
    """
    pixels = counts.astype(np.float32)
    below, above = np.cumsum(pixels)[:-1], np.cumsum(pixels[::-1])[-2::-1]
    values = pixels * levels
    low, high = np.cumsum(values)[:-1] / below, np.cumsum(values[::-1])[-2::-1] / above
    variance: NDArray[np.float64] = below * above * (low - high) ** 2
    return variance


def value_and_chroma(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return HSV's value and its chroma, value times saturation, of an (H, W, 3) RGB image."""
    red, green, blue = (image[..., channel] for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    return value, value - np.minimum(np.minimum(red, green), blue)


def _dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Grow a mask by `radius` pixels in the chessboard metric: along the columns, then along the rows."""
    grown = mask
    for _ in range(mask.ndim):
        source = grown.T
        grown = source.copy("K")
        for step in range(1, radius + 1):
            grown[step:] |= source[:-step]
            grown[:-step] |= source[step:]
    return grown
