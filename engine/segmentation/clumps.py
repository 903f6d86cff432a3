"""Clumps across blocks: each is handed on once, whole, when every block that it could reach has come.

A clump is an 8-connected component of the foreground over the whole slide. A block's clumps that touch no other
block are complete at once. The rest wait as pieces, crops of maps, joined by union-find along the blocks' edges and
corners. The result is the set of whole clumps, whatever the blocks' sizes and the order in which they come.

Memory is bounded whatever the maps are: a clump that grows past a limit is handed on as far as it has come, except for
the strips along blocks that have not come yet (see `large_clumps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.block_edges import intervals, piece_numbers, touching_pieces
from nuclix.engine.segmentation.clump_state import GroupState, PieceState, StitcherState, packed, unpacked
from nuclix.engine.segmentation.crops import Crop, Frame, crops_of, crops_of_one_frame, joined
from nuclix.engine.segmentation.large_clumps import ClumpLimits, LargeClump, divide, merged
from nuclix.ext.block_clumps import BlockClumps, block_clumps

# A waiting clump is copied into its box unless that is larger than this and has at most so many pixels in one of it.
_DENSE_PIXELS = 1 << 16
_SPARSE = 8

_SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True, slots=True)
class Clump:
    """Foreground that is complete: labelled pixels in a crop of the slide.

    Attributes
    ----------
    box : Box
        Where the crop lies, at the model's scale.
    mask : (h, w) bool
        The foreground to split: one clump, or several that do not touch.
    maps : (channels, h + 2 context, w + 2 context) float32
        The maps of the box and `context` pixels around it.
    """

    box: Box
    mask: NDArray[np.bool_]
    maps: NDArray[np.float32]


@dataclass(slots=True)
class _Group:
    """Pieces known to be of one clump.

    `waiting` counts the (piece, direction) pairs whose block has not come; `pixels` and `values` what the group holds
    since it was last handed on in part, which `divided` says.
    """

    pieces: list[int]
    waiting: int
    pixels: int
    values: int
    divided: bool = False


@dataclass(slots=True)
class _Arrived:
    """A block that has come: the pieces along its edges (0: none), kept until all its neighbours have come."""

    sides: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)


class Stitcher:
    """Takes blocks in any order, hands on complete clumps.

    Parameters
    ----------
    row_edges, col_edges : sequence of int
        The blocks' grid: block (i, j) is rows ``row_edges[i]:row_edges[i + 1]`` and columns likewise.
    context : int
        How far around a clump its maps are kept.
    limits : ClumpLimits
        What open clumps may hold.

    Attributes
    ----------
    cuts : int
        How often a clump was handed on before it was complete.
    """

    def __init__(
        self,
        row_edges: tuple[int, ...],
        col_edges: tuple[int, ...],
        context: int,
        limits: ClumpLimits | None = None,
    ) -> None:
        self._row_edges = row_edges
        self._col_edges = col_edges
        self._context = context
        self._limits = limits or ClumpLimits()
        self._arrived: dict[tuple[int, int], _Arrived] = {}
        self._missing: dict[tuple[int, int], int] = {}
        self._pieces: dict[int, list[Crop]] = {}
        self._parent: dict[int, int] = {}
        self._groups: dict[int, _Group] = {}
        self._next_piece = 1
        self._values = 0
        self.cuts = 0

    def block_box(self, row: int, col: int) -> Box:
        """Return the pixels of block (row, col)."""
        return Box.between(
            self._row_edges[row], self._col_edges[col], self._row_edges[row + 1], self._col_edges[col + 1]
        )

    def add_empty(self, row: int, col: int) -> list[Clump | LargeClump]:
        """Record that block (row, col) has no foreground; return the clumps that this completes."""
        return self._arrive((row, col), {})

    def add(self, row: int, col: int, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[Clump | LargeClump]:
        """Take the foreground of block (row, col).

        Parameters
        ----------
        row, col : int
            Which block; each comes once.
        maps : (channels, h + 2 context, w + 2 context) float32
            The maps of the block and `context` pixels around it; zero outside the slide.
        mask : (h, w) bool
            The block's foreground.

        Returns
        -------
        list of Clump or LargeClump
            What is complete now: the block's own clumps as one entry, then those that waited for it, then what clumps
            over the limit could hand on.
        """
        box = self.block_box(row, col)
        if mask.shape != box.shape:
            raise ValueError(f"block ({row}, {col}) is {box.shape}, its mask {mask.shape}")
        found = block_clumps(mask, self._neighbours((row, col), _SIDES))
        done: list[Clump | LargeClump] = [Clump(box, found.closed, maps)] if found.any_closed else []
        numbers = self._cut_pieces(box, found, maps)
        sides = {d: numbers[found.along(d)] for d in self._neighbours((row, col), (*_SIDES, *_CORNERS))}
        return done + self._arrive((row, col), sides if len(found) else {})

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Return what waits, as arrays, once whole rows of blocks have come.

        Returns
        -------
        dict of str to array
            What `restore` takes: the open pieces and the lower edge of the last row.

        Raises
        ------
        ValueError
            If a row of blocks is half there.
        """
        cols = len(self._col_edges) - 1
        rows, rest = divmod(len(self._missing), cols)
        if rest:
            raise ValueError("a snapshot is taken between rows of blocks")
        edges = [(col, d[1], image) for col in range(cols) for d, image in self._lower_edges(rows - 1, col)]
        pieces = [PieceState(n, self._find(n), self._pieces.get(n, [])) for n in sorted(self._parent)]
        groups = [
            GroupState(root, group.waiting, group.pixels, group.values, group.divided)
            for root, group in sorted(self._groups.items())
        ]
        return packed(StitcherState((rows, self._next_piece, self.cuts), pieces, groups, edges))

    def _lower_edges(self, row: int, col: int) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
        """Return the edges of block (row, col) that face the next row; none where it has no open piece."""
        arrived = self._arrived.get((row, col))
        return [(d, image) for d, image in arrived.sides.items() if d[0] == 1] if arrived else []

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up where `snapshot` left off, in a stitcher of the same grid that has seen nothing.

        Parameters
        ----------
        arrays : mapping of str to array
            What `snapshot` returned.
        """
        state = unpacked(arrays, self._context)
        rows, self._next_piece, self.cuts = state.counts
        for row in range(rows):
            for col in range(len(self._col_edges) - 1):
                below = [d for d in self._neighbours((row, col), (*_SIDES, *_CORNERS)) if d[0] == 1]
                self._missing[row, col] = len(below) if row == rows - 1 else 0
                if self._missing[row, col]:
                    self._arrived[row, col] = _Arrived()
        for item in state.groups:
            self._groups[item.root] = _Group([], item.waiting, item.pixels, item.values, item.divided)
            self._values += item.values
        for piece in state.pieces:
            self._parent[piece.number] = piece.root
            self._groups[piece.root].pieces.append(piece.number)
            if piece.crops:
                self._pieces[piece.number] = piece.crops
        for col, side, image in state.edges:
            self._arrived[rows - 1, col].sides[1, side] = image

    def _neighbours(self, index: tuple[int, int], directions: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the directions in which the grid goes on."""
        rows, cols = len(self._row_edges) - 1, len(self._col_edges) - 1
        return [d for d in directions if 0 <= index[0] + d[0] < rows and 0 <= index[1] + d[1] < cols]

    def _cut_pieces(self, box: Box, found: BlockClumps, maps: NDArray[np.float32]) -> NDArray[np.int64]:
        """Keep the open clumps' pixels; return the number of each one's piece behind a 0."""
        numbers = np.arange(self._next_piece - 1, self._next_piece + len(found), dtype=np.int64)
        numbers[0] = 0
        if not len(found):
            return numbers
        places = [Box.between(*place) for place in found.boxes.tolist()]
        pixels = list(found.pixels_of())
        shared = sum(place.area for place in places) > 2 * box.area  # thin and long: their boxes would fill the memory
        crops = crops_of_one_frame(box, places, pixels, maps) if shared else crops_of(box, places, pixels, maps)
        for number, crop in zip(numbers[1:].tolist(), crops, strict=True):
            self._pieces[number] = [crop]
            self._parent[number] = number
            area = -(-crop.frame.box.area // len(crops)) if shared else crop.frame.box.area
            self._groups[number] = _Group([number], 0, len(crop.pixels), area * len(maps))
            self._values += area * len(maps)
        self._next_piece += len(found)
        return numbers

    def _arrive(
        self, index: tuple[int, int], sides: dict[tuple[int, int], NDArray[np.int64]]
    ) -> list[Clump | LargeClump]:
        """Join the block to the neighbours that have come, and let the others be waited for."""
        if index in self._missing:
            raise ValueError(f"block {index} has come twice")
        directions = self._neighbours(index, (*_SIDES, *_CORNERS))
        self._arrived[index] = _Arrived(sides)
        self._missing[index] = len(directions)
        touched = {number for image in sides.values() for number in piece_numbers(image)}
        for d in directions:
            other = (index[0] + d[0], index[1] + d[1])
            mine = sides.get(d)
            if other not in self._missing:
                for number in piece_numbers(mine):
                    self._groups[self._find(number)].waiting += 1
                continue
            theirs = self._arrived[other].sides.get((-d[0], -d[1])) if other in self._arrived else None
            if mine is not None and theirs is not None:
                for a, b in sorted(touching_pieces(mine, theirs)):
                    self._unite(a, b)
            for number in piece_numbers(theirs):
                self._groups[self._find(number)].waiting -= 1
                touched.add(number)
            self._settle(other)
            self._missing[index] -= 1
        if self._missing[index] == 0:
            self._arrived.pop(index, None)
        done = [*self._close(touched), *self._relieve(touched)]
        large = [clump for clump in done if isinstance(clump, LargeClump)]
        return [*(clump for clump in done if isinstance(clump, Clump)), *merged(large)]

    def _settle(self, index: tuple[int, int]) -> None:
        """Count one neighbour of `index` as come; forget the block's edges after the last."""
        self._missing[index] -= 1
        if self._missing[index] == 0:
            self._arrived.pop(index, None)

    def _find(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _unite(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        if a == b:
            return
        keep, drop = (a, b) if len(self._groups[a].pieces) >= len(self._groups[b].pieces) else (b, a)
        gone = self._groups.pop(drop)
        group = self._groups[keep]
        group.pieces += gone.pieces
        group.waiting += gone.waiting
        group.pixels += gone.pixels
        group.values += gone.values
        group.divided |= gone.divided
        self._parent[drop] = keep

    def _close(self, numbers: set[int]) -> list[Clump | LargeClump]:
        """Return the clumps among `numbers` that wait for nothing, in the order of their first piece."""
        done = []
        for root in sorted({self._find(number) for number in numbers}):
            if self._groups[root].waiting == 0:
                done.append(self._assemble(self._groups.pop(root)))
        return done

    def _assemble(self, group: _Group) -> Clump | LargeClump:
        """Join a group's pieces and forget them."""
        crops = [crop for number in group.pieces for crop in self._pieces.pop(number, ())]
        for number in group.pieces:
            del self._parent[number]
        self._values -= group.values
        large = LargeClump(tuple(crops), self._limits)
        box = large.box
        area, pixels = box.area, sum(len(crop.pixels) for crop in crops)
        if group.divided or area > self._limits.pixels or (area > _DENSE_PIXELS and area > _SPARSE * pixels):
            return large
        return Clump(box, *joined(crops, box))

    def _relieve(self, touched: set[int]) -> list[Clump | LargeClump]:
        """Hand on, as far as they have come, clumps over the limit; all open ones where together they are over it."""
        roots = {self._find(number) for number in touched if number in self._parent}
        over = {root for root in roots if self._groups[root].pixels > self._limits.pixels}
        if self._values > self._limits.values:
            over = {root for root, group in self._groups.items() if group.values}
        parts: dict[tuple[int, Box], Frame] = {}
        images = [image for arrived in self._arrived.values() for image in arrived.sides.values()] if over else []
        on_edges = set(np.unique(np.concatenate(images)).tolist()) if images else set()
        done = [self._divide(root, parts, on_edges) for root in sorted(over)]
        return [LargeClump(tuple(crops), self._limits) for crops in done if any(crop.own for crop in crops)]

    def _divide(self, root: int, parts: dict[tuple[int, Box], Frame], on_edges: set[int]) -> list[Crop]:
        """Return the crops of a group, own where they can be split now; keep the strips that have to wait.

        `on_edges` are the pieces that a block to come may touch.
        """
        group: _Group = self._groups[root]
        now: list[Crop] = []
        for number in group.pieces:
            self._parent[number] = root
            crops = self._pieces.pop(number, [])
            if not crops:
                continue
            mine, later = divide(crops, self._frontier(crops), self._limits.overlap, parts)
            now += mine
            if later:
                self._pieces[number] = later
        for number in group.pieces:
            if number not in self._pieces and number != root and number not in on_edges:
                del self._parent[number]
        group.pieces = [number for number in group.pieces if number in self._parent]
        self._values -= group.values
        group.pixels = group.values = 0
        if any(crop.own for crop in now):
            group.divided = True
            self.cuts += 1
        return now

    def _frontier(self, crops: list[Crop]) -> list[Box]:
        """Return the blocks near a piece that have not come."""
        reach = 2 * self._limits.overlap
        box = LargeClump(tuple(crops), self._limits).box.expand(reach)
        rows = intervals(self._row_edges, box.row, box.row_end)
        cols = intervals(self._col_edges, box.col, box.col_end)
        return [self.block_box(row, col) for row in rows for col in cols if (row, col) not in self._missing]
