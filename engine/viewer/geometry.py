"""Deep-zoom geometry: levels of powers of two, square tiles, counted from the corner that QuPath shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nuclix.engine.geometry import Box

TILE = 512  # pixels along a tile of the image


@dataclass(frozen=True, slots=True)
class TilePyramid:
    """The levels and tiles of an image; level 0 is the coarsest, one pixel large (Deep Zoom).

    Attributes
    ----------
    bounds : Box
        What is shown, in level-0 pixels of the slide.
    """

    bounds: Box

    @property
    def max_level(self) -> int:
        """The level at full resolution."""
        return max(0, math.ceil(math.log2(max(1, *self.bounds.shape))))

    def downsample(self, level: int) -> int:
        """Return the slide's level-0 pixels along a pixel of a level."""
        return 1 << (self.max_level - level)

    def tile(self, level: int, col: int, row: int) -> Box | None:
        """Return a tile in pixels of its level, from the slide's corner; None if there is no such tile.

        The slide's corner is the image's, so that tiles are read without resampling where a level of the slide fits.
        """
        if not 0 <= level <= self.max_level or row < 0 or col < 0:
            return None
        step = self.downsample(level)
        height, width = (max(1, math.ceil(length / step)) for length in self.bounds.shape)
        box = Box(row * TILE, col * TILE, TILE, TILE).intersect(Box(0, 0, height, width))
        return box if box.area else None

    def source(self, level: int, box: Box) -> Box:
        """Return a tile in pixels of its level, counted from the slide's own corner."""
        step = self.downsample(level)
        return box.shift(round(self.bounds.row / step), round(self.bounds.col / step))
