"""The patches that a region of a slide needs, so that its nuclei equal those of the whole slide.

A clump (a connected component of the foreground) is split as a whole. A region therefore needs, besides the patches
that it touches, those that the clumps in it reach into. Which ones these are is known once the first have been
computed: `RegionPatches.extend` adds them until no clump that touches the region is cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.slide.tissue import TissueMask

EIGHT = np.ones((3, 3), np.int8)


class RegionPatches:
    """Chooses the patches of a region; takes the place of a `TissueMask` in the pipeline.

    Parameters
    ----------
    region : Box
        In pixels at the model's scale.
    grid : TileGrid
        The slide's grid.
    tissue : TissueMask or None
        Where to compute within the region; None computes everywhere.
    context : int
        Of the post-processor, in pixels.
    """

    def __init__(self, region: Box, grid: TileGrid, tissue: TissueMask | None, context: int) -> None:
        self._region = region.intersect(Box(0, 0, grid.height, grid.width))
        self._grid = grid
        self._tissue = tissue
        self._context = context
        self._foreground: list[tuple[Box, NDArray[np.bool_]]] = []
        valid = grid.patch.valid
        around = self._region.expand(context)
        rows = range(around.row // valid, -(-around.row_end // valid))
        cols = range(around.col // valid, -(-around.col_end // valid))
        self._cells = {(row, col) for row in rows for col in cols} if self._region.area else set()

    def any_in(self, box: Box) -> bool:
        """Return whether the patch that reads `box` is needed."""
        margin, valid = self._grid.patch.margin, self._grid.patch.valid
        cell = ((box.row + margin) // valid, (box.col + margin) // valid)
        return cell in self._cells and (self._tissue is None or self._tissue.any_in(box))

    def record(self, box: Box, mask: NDArray[np.bool_]) -> None:
        """Take the foreground of a part of the slide."""
        if mask.any():
            self._foreground.append((box, mask.copy()))

    def extend(self) -> bool:
        """Add the patches that clumps of the region reach into; return whether there are any.

        Forgets the foreground that it was given.
        """
        reached = self._reached() - self._cells
        self._foreground.clear()
        inside = {
            (row, col)
            for row, col in reached
            if 0 <= row * self._grid.patch.valid < self._grid.height
            and 0 <= col * self._grid.patch.valid < self._grid.width
        }
        new = {cell for cell in inside if self._has_tissue(cell)}
        self._cells |= inside
        return bool(new)

    def _has_tissue(self, cell: tuple[int, int]) -> bool:
        patch = self._grid.patch
        box = Box(cell[0] * patch.valid, cell[1] * patch.valid, patch.valid, patch.valid)
        return self._tissue is None or self._tissue.any_in(box.expand(patch.margin))

    def _reached(self) -> set[tuple[int, int]]:
        """Return the cells of the patch grid that clumps of the region touch, with context and neighbours."""
        from scipy import ndimage

        if not self._foreground:
            return set()
        boxes = [box for box, _ in self._foreground]
        frame = Box.between(
            min(box.row for box in boxes),
            min(box.col for box in boxes),
            max(box.row_end for box in boxes),
            max(box.col_end for box in boxes),
        )
        mosaic = np.zeros(frame.shape, np.bool_)
        for box, mask in self._foreground:
            mosaic[box.slices(frame)] |= mask
        clumps, _ = ndimage.label(mosaic, EIGHT)
        touching = np.zeros(int(clumps.max()) + 1, np.bool_)
        touching[np.unique(clumps[self._region.intersect(frame).slices(frame)])] = True
        touching[0] = False
        rows, cols = np.nonzero(touching[clumps])
        reach, valid = self._context + 1, self._grid.patch.valid
        cells: set[tuple[int, int]] = set()
        for down in (-reach, 0, reach):
            for right in (-reach, 0, reach):
                pairs = np.stack([(rows + frame.row + down) // valid, (cols + frame.col + right) // valid], axis=1)
                cells |= {(int(row), int(col)) for row, col in np.unique(pairs, axis=0)}
        return cells
