"""Which tiles of a pyramid are known to be of one colour without decoding each of them.

Exporters write background once and let a thousand tiles point to it, or leave such tiles out. A slide of 300,000 px is
then a file of a megabyte, and decoding it tile by tile takes minutes for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.plugins.readers._tiles import BadTileError, TilePage

UNKNOWN = -1
WHITE = 0xFFFFFF
MAX_SHARED = 32  # of the tiles that share their bytes, the most frequent are looked at

Tile = Callable[[int, int], NDArray[np.uint8]]  # (level, index) to the pixels


class UniformTiles:
    """Colours of tiles of one colour, for each level of a pyramid of one page a level.

    Parameters
    ----------
    pages : tuple of TilePage
        A page for each level.
    tile : callable
        (level, index) to a tile's pixels; may raise `BadTileError`.
    """

    def __init__(self, pages: tuple[TilePage, ...], tile: Tile) -> None:
        self._pages = pages
        self._tile = tile
        self._grids: dict[int, NDArray[np.int32]] = {}
        self._lock = threading.RLock()

    def grid(self, level: int) -> NDArray[np.int32]:
        """Return each tile's colour as red << 16 | green << 8 | blue, or `UNKNOWN`; (rows, columns) of tiles."""
        with self._lock:
            if level not in self._grids:
                self._grids[level] = self._find(level)
            return self._grids[level]

    def colour(self, level: int, box: Box) -> int:
        """Return the colour of a box inside the level, `UNKNOWN` unless all tiles under it are of that colour."""
        page = self._pages[level]
        if not box.area or box.intersect(page.place) != box:
            return UNKNOWN
        height, width = page.tile
        rows = slice(box.row // height, (box.row_end - 1) // height + 1)
        colours = self.grid(level)[rows, box.col // width : (box.col_end - 1) // width + 1]
        first = int(colours.flat[0])
        return first if (colours == first).all() else UNKNOWN

    def _find(self, level: int) -> NDArray[np.int32]:
        page = self._pages[level]
        rows, cols = page.grid
        colours = np.full(rows * cols, UNKNOWN, np.int32)
        empty = page.empty[: rows * cols]
        if level == 0:
            colours[empty] = WHITE
        else:
            for index in np.flatnonzero(empty):
                colours[index] = self.colour(level - 1, self.finer_box(level, int(index)))
        if len(page.planes) == 1:
            self._find_shared(level, colours, empty)
        return colours.reshape(rows, cols)

    def _find_shared(self, level: int, colours: NDArray[np.int32], empty: NDArray[np.bool_]) -> None:
        offsets = self._pages[level].planes[0].offsets
        _, first, inverse, counts = np.unique(offsets, return_index=True, return_inverse=True, return_counts=True)
        shared = [number for number in np.argsort(-counts)[:MAX_SHARED] if counts[number] > 1]
        for number in shared:
            if empty[first[number]]:
                continue
            try:
                tile = self._tile(level, int(first[number]))
            except BadTileError:
                continue
            if (tile == tile[0, 0]).all():
                red, green, blue = (int(value) for value in tile[0, 0])
                colours[(inverse == number) & ~empty] = red << 16 | green << 8 | blue

    def finer_box(self, level: int, index: int) -> Box:
        """Return the box of the finer level under the tile `index` of `level`."""
        page, finer = self._pages[level].place, self._pages[level - 1].place
        row, col = divmod(index, self._pages[level].grid[1])
        height, width = self._pages[level].tile
        tall, wide = finer.height / page.height, finer.width / page.width
        box = Box(
            int(row * height * tall), int(col * width * wide), int(np.ceil(height * tall)), int(np.ceil(width * wide))
        )
        return box.intersect(finer)


def filled(shape: tuple[int, int], colour: int) -> NDArray[np.uint8]:
    """Return an image of one colour."""
    out = np.empty((*shape, 3), np.uint8)
    out[:] = split_colour(colour)
    return out


def split_colour(colour: int) -> tuple[int, int, int]:
    """Return red, green and blue of a packed colour."""
    return colour >> 16 & 255, colour >> 8 & 255, colour & 255
