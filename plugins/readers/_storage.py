"""Bytes of a file at any offset, and a cache of the tiles decoded last; both for several threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class RandomAccessFile:
    """A file that several threads read at any offset.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`.

        One system call returns at most 2,147,479,552 bytes on Linux (``read(2)``, notes), and may return fewer.

        Raises
        ------
        EOFError
            If the file ends before.
        """
        data = self._piece(offset, count)
        if len(data) == count:
            return data
        pieces, length = [data], len(data)
        while length < count and pieces[-1]:
            pieces.append(self._piece(offset + length, count - length))
            length += len(pieces[-1])
        if length < count:
            raise EOFError("reaches past the end of the file")
        return b"".join(pieces)

    def _piece(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:  # Windows: one seek and read at a time
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TileCache:
    """The tiles used last, up to a number of bytes; neighbouring boxes share the tiles on their border.

    Parameters
    ----------
    max_bytes : int
        What the tiles may take together; the one used last is always kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._size = 0
        self._tiles: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the tile `key`, made by `make` unless it is cached."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
        tile = make()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._size += tile.nbytes
            while self._size > self._max and len(self._tiles) > 1:
                self._size -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def clear(self) -> None:
        """Drop every tile."""
        with self._lock:
            self._tiles.clear()
            self._size = 0
