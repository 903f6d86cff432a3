"""Read a slide at the model's scale, whatever the levels of its pyramid are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo, SlideReader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.damage import UniformRegions
from nuclix.engine.slide.resample import area_taps, linear_taps
from nuclix.ext.resample import box_mean, separable

# Nominal scales of scanners of one magnification differ by about this much (20x: 0.4942 to 0.5040; 40x: 0.2461 to
# 0.2527), no more than nuclei differ from each other. Taking an exact ratio instead spares the resampling blur and
# keeps outlines on the pixel grid.
SNAP = 0.05
PIECE_PX = 2048  # what is resampled is read in pieces of about so many pixels of the level along each side: 12 MB
PLAIN_IMAGE = "image"  # what a reader of plain images calls their vendor (`SlideInfo`)


def snapped(ratio: float) -> float:
    """Return the whole number, or 1 / whole number, within `SNAP` of a ratio of scales; else the ratio itself.

    >>> snapped(1.02), snapped(2.09), snapped(0.499 / 0.25), snapped(0.25 / 0.499), snapped(1.37)
    (1.0, 2.0, 2.0, 0.5, 1.37)
    """
    near = float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
    return near if abs(ratio / near - 1) <= SNAP else ratio


def level_downsample(base: Level, level: Level) -> float:
    """Return level-0 pixels per pixel of `level`, whole where its size is a rounded quotient of level 0's.

    A pyramid of 2967 rows has 741 at a quarter: the ratio 4.004 comes from the rounding, the pixels lie 4 apart.
    """
    whole = round(level.downsample)
    rounded = all(
        full // whole <= part <= -(-full // whole)
        for full, part in ((base.height, level.height), (base.width, level.width))
    )
    return float(whole) if rounded else level.downsample


def _extent(length: int, downsample: float) -> int:
    """Return how many pixels cover `length`; a hair over a whole number is rounding (1 / 3 is not exact)."""
    return math.ceil(length / downsample - 1e-6)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """How a slide is read at a scale: size and downsample of the view, the level, its pixels along one of the view."""

    height: int
    width: int
    downsample: float
    level: int
    factor: float


def view_plan(info: SlideInfo, model_scale: Scale, slide_scale: Scale) -> ViewPlan:
    """Return how `SlideView` reads a slide; nothing is opened."""
    levels = info.levels
    downsample = snapped(model_scale.pixels_of(slide_scale))
    downsamples = [level_downsample(levels[0], level) for level in levels]
    fine = [index for index, coarser in enumerate(downsamples) if coarser <= downsample]
    level = max(fine, key=lambda index: downsamples[index], default=0)
    height, width = (_extent(length, downsample) for length in (levels[0].height, levels[0].width))
    return ViewPlan(height, width, downsample, level, downsample / downsamples[level])


class SlideView:
    """A slide at the model's scale.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    model_scale : Scale
        The scale that is wanted.
    slide_scale : Scale
        Level 0's scale.

    Attributes
    ----------
    reader : SlideReader
        The open slide.
    downsample : float
        Level-0 pixels along one pixel of the view; snapped to a whole ratio where that is near.
    scale : Scale
        The true size of the view's pixel: `downsample` times level 0's.
    height, width : int
        The view's size; the last row and column may reach over the slide's edge.
    level : int
        The level that is read: the coarsest that is not coarser than the view.
    factor : float
        Pixels of that level along one of the view.
    """

    def __init__(self, reader: SlideReader, model_scale: Scale, slide_scale: Scale) -> None:
        plan = view_plan(reader.info, model_scale, slide_scale)
        self.reader = reader
        self.downsample = plan.downsample
        self.scale = Scale(plan.downsample * slide_scale.mpp)
        self.height, self.width = plan.height, plan.width
        self.level, self.factor = plan.level, plan.factor
        self._uniform = reader.uniform if isinstance(reader, UniformRegions) else None

    @property
    def info(self) -> SlideInfo:
        """What the reader knows of the slide."""
        return self.reader.info

    @property
    def box(self) -> Box:
        """All of the view."""
        return Box(0, 0, self.height, self.width)

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Read a box at the view's scale; how boxes are cut makes no difference to any pixel.

        Where the view is resampled, a plain image is mirrored at its border for the pixels that lie partly outside.

        Parameters
        ----------
        box : Box
            In the view's pixels; may reach over its edges.

        Returns
        -------
        (height, width, 3) uint8
            RGB, white outside the slide.

        Raises
        ------
        SlideError
            If the slide's file is damaged there.
        """
        if self.factor == 1:
            return self.reader.read(self.level, box)
        out = np.full((*box.shape, 3), 255, np.uint8)
        inside = box.intersect(self.box)
        if not inside.area:
            return out
        step = max(1, int(PIECE_PX / self.factor))
        for row in range(inside.row - inside.row % step, inside.row_end, step):
            for col in range(inside.col - inside.col % step, inside.col_end, step):
                piece = Box(row, col, step, step).intersect(inside)
                out[piece.slices(box)] = self._resampled(piece)
        return out

    def read_patch(self, box: Box) -> NDArray[np.uint8]:
        """Read a box for the network: as `read`, but a plain image is mirrored beyond its edges.

        A slide ends in background. A plain image ends in the middle of what it shows, and white next to it, above all
        next to the black of fluorescence, is what no network has learnt from (multi-head paper, section 5.6).

        Parameters
        ----------
        box : Box
            In the view's pixels; may reach over its edges, but not lie wholly outside.

        Returns
        -------
        (height, width, 3) uint8
            RGB.

        Raises
        ------
        SlideError
            If the slide's file is damaged there.
        """
        inside = box.intersect(self.box)
        if self.info.vendor != PLAIN_IMAGE or inside == box or not inside.area:
            return self.read(box)
        return mirrored(self.read, self.box, box)

    def _resampled(self, box: Box) -> NDArray[np.uint8]:
        """Read a box inside the view from the level's pixels under it, unless those are known to be of one colour."""
        if self.factor.is_integer():
            whole = int(self.factor)
            source = Box(box.row * whole, box.col * whole, box.height * whole, box.width * whole)
        else:
            taps = area_taps if self.factor > 1 else linear_taps
            rows, cols = taps(box.row, box.height, self.factor), taps(box.col, box.width, self.factor)
            source = Box.between(rows.start, cols.start, rows.stop, cols.stop)
        colour = None if self._uniform is None else self._uniform(self.level, source)
        if colour is not None:
            return np.full((*box.shape, 3), colour, np.uint8)
        pixels = self._source(source)
        return box_mean(pixels, whole) if self.factor.is_integer() else separable(pixels, rows.relative, cols.relative)

    def _source(self, box: Box) -> NDArray[np.uint8]:
        """Read a box of the level; over the edges white follows a slide, and its mirror image a plain image."""
        if self.info.vendor != PLAIN_IMAGE:
            return self.reader.read(self.level, box)
        level = self.info.levels[self.level]
        return mirrored(lambda part: self.reader.read(self.level, part), Box(0, 0, level.height, level.width), box)


def mirrored(read: Callable[[Box], NDArray[np.uint8]], whole: Box, box: Box) -> NDArray[np.uint8]:
    """Read a box of an image that is mirrored at its edges, again and again.

    Parameters
    ----------
    read : callable
        A box inside `whole` to its pixels.
    whole : Box
        The image; starts at (0, 0).
    box : Box
        May reach over the edges.

    Returns
    -------
    (height, width, 3) uint8
    """
    if box.intersect(whole) == box:
        return read(box)
    rows = _reflected(box.row, box.row_end, whole.height)
    cols = _reflected(box.col, box.col_end, whole.width)
    source = Box.between(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
    return np.ascontiguousarray(read(source)[rows - source.row][:, cols - source.col])


def _reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Return which of 0 ... length - 1 each place shows where the edges mirror: 1 0 | 0 1 ... n-1 | n-1 n-2."""
    places = np.arange(start, stop) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def slide_bounds(info: SlideInfo) -> Box:
    """Return the part of level 0 that QuPath shows."""
    return info.bounds or Box(0, 0, info.levels[0].height, info.levels[0].width)
