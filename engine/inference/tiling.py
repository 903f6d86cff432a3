"""The two grids of a slide at the model's scale: network patches, and the blocks that are post-processed.

The patch grid is anchored at the slide's origin and knows nothing of blocks. Patches are computed in units: squares
of whole patch middles, at least as large as a block. A unit is then cut into one or more blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Box

# Parts of patches begin and end at multiples of so many pixels, so that a network meets few shapes: each takes some
# hundredths of a second to prepare.
PART_STEP = 64


def _edges(extent: int, step: int) -> tuple[int, ...]:
    """Return 0, step, 2 step, ... and `extent`."""
    return (*range(0, extent, step), extent) if extent else (0,)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How a slide of `height` x `width` pixels (at the model's scale) is cut.

    Attributes
    ----------
    height, width : int
        The slide in pixels at the model's scale.
    patch : PatchShape
        What the network works on.
    block : int
        Wanted edge of a post-processing block. At least a patch's middle: blocks are units of whole patches
        (rounded to the nearest number). Smaller: each patch's middle is cut into equal parts no larger.
    """

    height: int
    width: int
    patch: PatchShape
    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"a block must be at least one pixel wide, not {self.block}")

    @property
    def patches_per_unit(self) -> int:
        """Patches along the edge of a unit."""
        return max(1, round(self.block / self.patch.valid))

    @property
    def unit(self) -> int:
        """Edge of a unit in pixels."""
        return self.patches_per_unit * self.patch.valid

    @property
    def unit_rows(self) -> int:
        """Rows of units."""
        return -(-self.height // self.unit)

    @property
    def unit_cols(self) -> int:
        """Columns of units."""
        return -(-self.width // self.unit)

    def unit_box(self, row: int, col: int) -> Box:
        """Return the pixels of unit (row, col), clipped to the slide."""
        box = Box(row * self.unit, col * self.unit, self.unit, self.unit)
        return box.intersect(Box(0, 0, self.height, self.width))

    def patches_of(self, row: int, col: int) -> Iterator[Box]:
        """Yield the middles (not clipped) of unit (row, col)'s patches that begin inside the slide."""
        valid = self.patch.valid
        box = self.unit_box(row, col)
        for top in range(box.row, box.row_end, valid):
            for left in range(box.col, box.col_end, valid):
                yield Box(top, left, valid, valid)

    def part(self, core: Box, near: Box) -> Box:
        """Return the part of a patch's middle to compute: what is needed and on the slide, rounded up to few shapes.

        Parameters
        ----------
        core : Box
            A patch's middle.
        near : Box
            The part of it that is needed.

        Returns
        -------
        Box
            Inside `core`; begins and ends at multiples of `PART_STEP` (or, if larger, of the network's down-sampling)
            from the middle's first pixel, or where the middle does.
        """
        step = -(-PART_STEP // self.patch.multiple) * self.patch.multiple
        near = near.intersect(Box(0, 0, self.height, self.width))
        rows, cols = near.row - core.row, near.col - core.col
        return Box.between(
            core.row + rows // step * step,
            core.col + cols // step * step,
            core.row + -(-(rows + near.height) // step) * step,
            core.col + -(-(cols + near.width) // step) * step,
        ).intersect(core)

    @property
    def _block_step(self) -> int:
        """Edge of a block inside a unit: the unit itself, or an equal part of a patch's middle."""
        if self.block >= self.patch.valid:
            return self.unit
        return math.ceil(self.patch.valid / math.ceil(self.patch.valid / self.block))

    def block_edges(self, context: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the row and column edges of the blocks' grid.

        A unit's maps settle the foreground only up to `context` pixels before its lower and right edge, so
        the edges between units lie `context` pixels further up and left than the units' own.

        Returns
        -------
        tuple of tuple of int
            Rising edges, each beginning with 0 and ending with the slide's extent.
        """
        return self._axis_edges(self.height, context), self._axis_edges(self.width, context)

    def _axis_edges(self, extent: int, context: int) -> tuple[int, ...]:
        units = _edges(extent, self.unit)
        inner = {max(0, edge - context) for edge in units[1:-1]}
        bounds = sorted({0, extent} | inner)
        edges = {
            start + part
            for start, end in itertools.pairwise(bounds)
            for part in range(0, end - start, self._block_step)
        }
        return tuple(sorted(edges | {extent}))
