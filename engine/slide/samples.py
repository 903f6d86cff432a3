"""Sample tiles of a slide's tissue: for its stain and its focus, without reading all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.tissue import TissueMask
from nuclix.engine.slide.view import SlideView

SAMPLE_SCALE = Scale(0.5)  # fine enough to see defocus, coarse enough to be read fast
TILE_PX = 256
MAX_TILES = 100  # shares to one percent
MAX_PIXELS = 250_000  # for statistics of colours
MIN_COVER = 0.5  # of a tile that is tissue


@dataclass(frozen=True, slots=True)
class TissueSamples:
    """Tiles of a slide.

    Attributes
    ----------
    tiles : tuple of (TILE_PX, TILE_PX, 3) uint8
        RGB at `mpp`; smaller where the slide is.
    mpp : float
        Micrometres per pixel.
    """

    tiles: tuple[NDArray[np.uint8], ...]
    mpp: float

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, 3) uint8, pixels of all tiles, at most `MAX_PIXELS`."""
        step = max(1, -(-sum(tile.size for tile in self.tiles) // (3 * MAX_PIXELS)))
        return np.concatenate([np.zeros((0, 3), np.uint8), *(tile.reshape(-1, 3)[::step] for tile in self.tiles)])


def tissue_samples(reader: SlideReader, view: SlideView, tissue: TissueMask | None) -> TissueSamples:
    """Read tiles spread evenly over the tissue.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    view : SlideView
        The slide at the model's scale, which the mask counts in.
    tissue : TissueMask or None
        Where tissue is; None for everywhere.

    Returns
    -------
    TissueSamples
        At most `MAX_TILES`, always the same ones; tiles that are tissue by half or more, or else those with most.

    Raises
    ------
    SlideError
        If the slide's file is damaged.
    """
    base = Scale(view.scale.mpp / view.downsample)
    low = SlideView(reader, max(SAMPLE_SCALE, base, key=lambda scale: scale.mpp), base)
    boxes = [
        Box(row, col, TILE_PX, TILE_PX).intersect(low.box)
        for row in range(0, low.height, TILE_PX)
        for col in range(0, low.width, TILE_PX)
    ]
    if tissue is not None:
        scale = low.downsample / view.downsample / tissue.downsample
        cover = np.array([_cover(tissue.mask, box, scale) for box in boxes])
        least = min(MIN_COVER, float(cover.max(initial=0.0)))
        boxes = [box for box, share in zip(boxes, cover, strict=True) if share >= least > 0]
    chosen = np.unique(np.linspace(0, len(boxes) - 1, min(MAX_TILES, len(boxes))).round().astype(int))
    return TissueSamples(tuple(low.read(boxes[index]) for index in chosen), low.scale.mpp)


def _cover(mask: NDArray[np.bool_], box: Box, scale: float) -> float:
    """Return the part of a box that is tissue; `scale` is pixels of the mask along one of the box."""
    rows = slice(int(box.row * scale), max(int(box.row * scale) + 1, round(box.row_end * scale)))
    cols = slice(int(box.col * scale), max(int(box.col * scale) + 1, round(box.col_end * scale)))
    part = mask[rows, cols]
    return float(part.mean()) if part.size else 0.0
