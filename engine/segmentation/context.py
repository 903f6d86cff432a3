"""Windows of maps with context around them, from units that arrive one by one.

A pixel's foreground may depend on the maps `context` pixels around it, so a unit settles it only up to `context` pixels
before its lower and right edge. The rest waits, as strips of maps, for the next unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import TileGrid


class ContextWindow:
    """Takes units' maps in raster order; gives the window that each of them completes.

    Parameters
    ----------
    grid : TileGrid
        The slide's grid.
    channels : int
        Planes per pixel: maps, and whatever else travels with them.
    context : int
        Pixels around, at most half of a patch's middle.
    maps : int, optional
        How many of the planes, the first ones, are maps; all by default.

    Raises
    ------
    ValueError
        If the context is too large for the grid.
    """

    def __init__(self, grid: TileGrid, channels: int, context: int, maps: int | None = None) -> None:
        if 2 * context > grid.patch.valid:
            raise ValueError(
                f"context of {context} px exceeds half the valid region of the patch ({grid.patch.valid} px)"
            )
        self._grid = grid
        self._context = context
        self._channels = channels
        self._maps = channels if maps is None else maps
        self._above = self._strip()
        self._below = self._strip()
        self._left: NDArray[np.float32] | None = None
        self._row = 0

    def _strip(self) -> NDArray[np.float32]:
        return np.zeros((self._channels, 2 * self._context, self._grid.width), np.float32)

    def region(self, row: int, col: int) -> Box:
        """Return the pixels whose foreground unit (row, col) settles."""
        grid, context = self._grid, self._context
        box = grid.unit_box(row, col)
        top, left = max(0, box.row - context), max(0, box.col - context)
        bottom = box.row_end if row == grid.unit_rows - 1 else box.row_end - context
        right = box.col_end if col == grid.unit_cols - 1 else box.col_end - context
        return Box.between(top, left, bottom, right)

    def feed(self, row: int, col: int, maps: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Take unit (row, col); return the maps of its region and `context` pixels around it.

        Parameters
        ----------
        row, col : int
            The unit; units come in raster order, all of them.
        maps : (channels, h, w) float32 or None
            The unit's maps; None for background, which reads zero.

        Returns
        -------
        (channels, h + 2 context, w + 2 context) float32 or None
            None where all maps of the window are zero.
        """
        if self._context == 0:
            return maps
        if row != self._row:
            self._above, self._below, self._left, self._row = self._below, self._strip(), None, row
        box, window = self._grid.unit_box(row, col), self.region(row, col).expand(self._context)
        out = np.zeros((self._channels, *window.shape), np.float32)
        self._paste(out, window, self._above, Box(box.row - 2 * self._context, 0, 2 * self._context, self._grid.width))
        if self._left is not None:
            left = Box(box.row, box.col - self._left.shape[2], box.height, self._left.shape[2])
            self._paste(out, window, self._left, left)
        if maps is not None:
            self._paste(out, window, maps, box)
            self._keep(maps, box)
        else:
            self._left = None
        return out if out[: self._maps].any() else None

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Return what the next row of units will need, once a whole row has come."""
        return {"below": self._below}

    def restore(self, state: Mapping[str, NDArray[Any]], row: int) -> None:
        """Take up where `snapshot` left off, before row `row` of units."""
        self._below = np.array(state["below"], np.float32)
        self._row = row - 1

    def _keep(self, maps: NDArray[np.float32], box: Box) -> None:
        """Remember the strips that the units to the right and below will need."""
        strip = 2 * self._context
        self._left = maps[:, :, -strip:].copy()
        rows = min(strip, maps.shape[1])
        self._below[:, strip - rows :, box.col : box.col_end] = maps[:, -rows:]

    @staticmethod
    def _paste(out: NDArray[np.float32], window: Box, maps: NDArray[np.float32], box: Box) -> None:
        shared = window.intersect(box)
        if shared.area:
            out[(slice(None), *shared.slices(window))] = maps[(slice(None), *shared.slices(box))]
