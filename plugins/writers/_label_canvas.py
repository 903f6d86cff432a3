"""A large label image that is drawn in any order, in a file without a name: memory holds a few windows of it."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW = 2048  # pixels along a window: 16 MB of labels
_HELD = 4  # windows in memory: objects come neighbour by neighbour, so most meet a window that is there
_BYTES = WINDOW * WINDOW * 4


class LabelCanvas:
    """A (height, width) image of uint32, 0 where nothing has been drawn.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.
    folder : Path
        Where the file lies; it takes space only for windows that were drawn in, and goes with `close`.

    Raises
    ------
    OSError
        If the folder can't be written.
    """

    def __init__(self, shape: tuple[int, int], folder: Path) -> None:
        self.shape = shape
        self._folder = folder
        self._columns = -(-shape[1] // WINDOW)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        self._held: OrderedDict[tuple[int, int], NDArray[np.uint32]] = OrderedDict()
        self._drawn: set[tuple[int, int]] = set()

    def window(self, row: int, column: int, *, draw: bool = False) -> NDArray[np.uint32]:
        """Return the window of a row and column of windows.

        Parameters
        ----------
        row, column : int
            Number of the window.
        draw : bool
            Whether the caller will draw in it, before the next call.

        Returns
        -------
        (WINDOW, WINDOW) uint32
            Beyond the image it is 0.
        """
        key = (row, column)
        if key in self._held:
            self._held.move_to_end(key)
        else:
            while len(self._held) >= _HELD:
                self._store(*self._held.popitem(last=False))
            self._held[key] = self._load(key)
        if draw:
            self._drawn.add(key)
        return self._held[key]

    def _place(self, key: tuple[int, int]) -> int:
        return (key[0] * self._columns + key[1]) * _BYTES

    def _load(self, key: tuple[int, int]) -> NDArray[np.uint32]:
        content = np.zeros((WINDOW, WINDOW), np.uint32)
        if key in self._drawn:
            self._file.seek(self._place(key))
            self._file.readinto(content.data.cast("B"))
        return content

    def _store(self, key: tuple[int, int], content: NDArray[np.uint32]) -> None:
        if key not in self._drawn:
            return
        view, place = content.data.cast("B"), self._place(key)
        while view:
            written = os.pwrite(self._file.fileno(), view, place)
            view, place = view[written:], place + written

    def tile(self, row: int, column: int, edge: int) -> NDArray[np.uint32]:
        """Return the tile that begins at a pixel; `edge` divides `WINDOW`, and `row` and `column`."""
        key = (row // WINDOW, column // WINDOW)
        if key not in self._drawn:
            return np.zeros((edge, edge), np.uint32)
        top, left = row % WINDOW, column % WINDOW
        return self.window(*key)[top : top + edge, left : left + edge]

    def halved(self) -> LabelCanvas:
        """Return the image at half the resolution: every other pixel of every other row."""
        height, width = self.shape
        smaller = LabelCanvas((-(-height // 2), -(-width // 2)), self._folder)
        half = WINDOW // 2
        for row, column in sorted(self._drawn):
            target = smaller.window(row // 2, column // 2, draw=True)
            top, left = row % 2 * half, column % 2 * half
            target[top : top + half, left : left + half] = self.window(row, column)[::2, ::2]
        return smaller

    def close(self) -> None:
        """Remove the file."""
        self._held.clear()
        self._file.close()
