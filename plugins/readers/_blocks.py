"""Readers on a library that decodes any box: blocks of a fixed grid, cached, and closing while others read.

Read block by block, a pixel's value does not depend on the box that is asked for.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideInfo, SlideReader
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._storage import TileCache

BLOCK = 512  # pixels along a block: a whole number of the usual tiles of 128, 256 and 512 px
CACHE_BYTES = 64 << 20  # about 80 blocks
WHITE = 255


class BlockReader(SlideReader, ABC):
    """The part of a reader that two libraries share.

    Parameters
    ----------
    info : SlideInfo
        What is known of the slide.
    """

    def __init__(self, info: SlideInfo) -> None:
        self.info = info
        self._cache = TileCache(CACHE_BYTES)
        self._open = True
        self._reads = 0
        self._idle = threading.Condition()

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read a box of a level.

        Parameters
        ----------
        level : int
            Index into ``info.levels``.
        box : Box
            In the level's pixels; may reach over its edges.

        Returns
        -------
        (height, width, 3) uint8
            RGB; white outside the level, and where nothing was scanned.

        Raises
        ------
        SlideError
            If the library can't read the box.
        """
        if not 0 <= level < len(self.info.levels):
            raise ValueError(f"{self.info.path}: has no level {level}")
        with self._idle:
            if not self._open:
                raise ValueError(f"{self.info.path}: read after close")
            self._reads += 1
        try:
            return self._assembled(level, box)
        finally:
            with self._idle:
                self._reads -= 1
                self._idle.notify_all()

    def _assembled(self, level: int, box: Box) -> NDArray[np.uint8]:
        inside = box.intersect(Box(0, 0, self.info.levels[level].height, self.info.levels[level].width))
        out = np.full((*box.shape, 3), WHITE, np.uint8)
        if not inside.area:
            return out
        for row in range(inside.row // BLOCK, (inside.row_end - 1) // BLOCK + 1):
            for col in range(inside.col // BLOCK, (inside.col_end - 1) // BLOCK + 1):
                place = Box(row * BLOCK, col * BLOCK, BLOCK, BLOCK)
                shown = inside.intersect(place)
                out[shown.slices(box)] = self._block(level, place)[shown.slices(place)]
        return out

    def _block(self, level: int, place: Box) -> NDArray[np.uint8]:
        return self._cache.get((level, place.row, place.col), lambda: self._decoded(level, place))

    @abstractmethod
    def _decoded(self, level: int, place: Box) -> NDArray[np.uint8]:
        """Decode a block; it may reach over the level's edges."""

    @abstractmethod
    def _close(self) -> None:
        """Close the library's file."""

    def close(self) -> None:
        """Close the slide, when the reads under way have ended, and drop its blocks."""
        with self._idle:
            was_open, self._open = self._open, False
            self._idle.wait_for(lambda: self._reads == 0)
        if was_open:
            self._close()
            self._cache.clear()


def one_line(error: BaseException) -> str:
    """Return the text of an error without its line breaks."""
    return " ".join(str(error).split())
