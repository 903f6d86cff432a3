"""The clumps of one block of an image: those that lie inside it, and those that may go on behind its sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _components
from nuclix.ext._check import as_mask

# (row, column) steps to the block behind each side, and the bits by which the kernel knows them.
SIDES = {(-1, 0): 1, (1, 0): 2, (0, -1): 4, (0, 1): 8}


@dataclass(frozen=True, slots=True)
class BlockClumps:
    """8-connected components of a block's mask.

    Attributes
    ----------
    closed : (H, W) bool
        Those that touch no open side.
    any_closed : bool
        Whether there are any.
    boxes : (n, 4) int32
        First row, first column, end row and end column of each open one, in raster order of their first pixels.
    ends : (n + 1,) int64
        Open component i has the pixels ``pixels[ends[i]:ends[i + 1]]``.
    pixels : (P,) int32
        Flat indices into the component's box, in raster order.
    """

    closed: NDArray[np.bool_]
    any_closed: bool
    boxes: NDArray[np.int32]
    ends: NDArray[np.int64]
    pixels: NDArray[np.int32]
    _rows: NDArray[np.int32]
    _cols: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.boxes)

    def pixels_of(self) -> Iterator[NDArray[np.int32]]:
        """Yield the pixels of each open component."""
        for start, end in zip(self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True):
            yield self.pixels[start:end]

    def along(self, direction: tuple[int, int]) -> NDArray[np.int32]:
        """Return the open components, counted from 1, along the side or at the corner that faces `direction`.

        Parameters
        ----------
        direction : tuple of int
            Steps along rows and columns, each -1, 0 or 1, not both 0.

        Returns
        -------
        (H,), (W,) or (1,) int32
            0 where there is none.
        """
        row, col = direction
        if row == 0:
            return self._rows[int(col > 0)]
        line = self._cols[int(row > 0)]
        return line if col == 0 else line[:1] if col < 0 else line[-1:]


def block_clumps(mask: ArrayLike, open_sides: Collection[tuple[int, int]]) -> BlockClumps:
    """Tell the components of a block that are complete from those that may go on in its neighbours.

    One pass finds the mask's runs and joins them; the rest follows the runs, not the pixels.

    Parameters
    ----------
    mask : (H, W) bool or uint8 array_like
        Everything but 0 is foreground.
    open_sides : collection of (int, int)
        The sides of `SIDES` behind which the image goes on.

    Returns
    -------
    BlockClumps

    Raises
    ------
    TypeError, ValueError
        If `mask` is not a two-dimensional array of bool or uint8, or there is no such side.

    Examples
    --------
    >>> import numpy as np
    >>> found = block_clumps(np.array([[1, 0, 0], [0, 0, 1]], np.uint8), [(0, 1)])
    >>> found.closed.astype(int).tolist(), found.boxes.tolist(), found.along((0, 1)).tolist()
    ([[1, 0, 0], [0, 0, 0]], [[1, 2, 2, 3]], [0, 1])
    """
    array = as_mask(mask)
    unknown = [side for side in open_sides if side not in SIDES]
    if unknown:
        raise ValueError(f"there is no side {unknown[0]}: sides are {', '.join(map(str, SIDES))}")
    closed = np.zeros(array.shape, np.uint8)
    if not array.size:
        rows, cols = (np.zeros((2, length), np.int32) for length in array.shape)
        none = np.zeros((0, 4), np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32)
        return BlockClumps(closed.view(np.bool_), False, *none, rows, cols)
    found = _components.block_clumps(array, closed, sum(SIDES[side] for side in set(open_sides)))
    return BlockClumps(closed.view(np.bool_), *found)
