"""Clumps across blocks: each is handed on once, whole, when every block that it could reach has come.

A clump is an 8-connected component of the foreground over the whole slide. A block's clumps that touch no other
block are complete at once. The rest wait as pieces, crops of mask and maps, joined by union-find along the blocks'
edges and corners. The result is the set of whole clumps, whatever the blocks' sizes and the order of their coming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.ext.boxes import label_boxes, select_labels
from nuclix.ext.components import connected_components

# A clump's bounding box may grow to this many pixels: 4096 x 4096, a millimetre squared at 0.25 um/px.
CLUMP_LIMIT = 4096 * 4096

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
    maps : (channels, h + 2 halo, w + 2 halo) float32
        The maps of the box and `context` pixels around it.
    """

    box: Box
    mask: NDArray[np.bool_]
    maps: NDArray[np.float32]


@dataclass(slots=True)
class _Group:
    """Pieces known to be of one clump; `waiting` counts the (piece, direction) pairs whose block has not come."""

    pieces: list[int]
    waiting: int
    box: Box


@dataclass(slots=True)
class _Arrived:
    """A block that has come: the pieces along its edges (0: none), kept until all its neighbours have come."""

    sides: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)


def _hull(a: Box, b: Box) -> Box:
    return Box.between(min(a.row, b.row), min(a.col, b.col), max(a.row_end, b.row_end), max(a.col_end, b.col_end))


def _border(labels: NDArray[np.int32], direction: tuple[int, int]) -> NDArray[np.int32]:
    """Return the labels along the side, or at the corner, that faces `direction`."""
    rows = {-1: slice(0, 1), 0: slice(None), 1: slice(-1, None)}[direction[0]]
    cols = {-1: slice(0, 1), 0: slice(None), 1: slice(-1, None)}[direction[1]]
    return labels[rows, cols].ravel()


def _touching(here: NDArray[np.int64], there: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Return the pairs of pieces that are 8-neighbours across a shared side (or corner: one pixel each)."""
    pairs: set[tuple[int, int]] = set()
    n = len(here)
    for shift in (-1, 0, 1):
        a = here[max(0, -shift) : n - max(0, shift)]
        b = there[max(0, shift) : n - max(0, -shift)]
        both = (a > 0) & (b > 0)
        pairs.update(zip(a[both].tolist(), b[both].tolist(), strict=True))
    return pairs


class Stitcher:
    """Takes blocks in any order, hands on complete clumps.

    Parameters
    ----------
    row_edges, col_edges : sequence of int
        The blocks' grid: block (i, j) is rows ``row_edges[i]:row_edges[i + 1]`` and columns likewise.
    context : int
        How far around a clump its maps are kept.
    limit : int
        Most pixels of a waiting clump's bounding box; one that would grow past it is cut at that block edge.

    Attributes
    ----------
    cuts : int
        How often a clump was cut because of `limit`.
    """

    def __init__(
        self, row_edges: tuple[int, ...], col_edges: tuple[int, ...], context: int, limit: int = CLUMP_LIMIT
    ) -> None:
        self._row_edges = row_edges
        self._col_edges = col_edges
        self._halo = context
        self._limit = limit
        self._arrived: dict[tuple[int, int], _Arrived] = {}
        self._missing: dict[tuple[int, int], int] = {}
        self._pieces: dict[int, Clump] = {}
        self._parent: dict[int, int] = {}
        self._groups: dict[int, _Group] = {}
        self._next_piece = 1
        self.cuts = 0

    def block_box(self, row: int, col: int) -> Box:
        """Return the pixels of block (row, col)."""
        return Box.between(
            self._row_edges[row], self._col_edges[col], self._row_edges[row + 1], self._col_edges[col + 1]
        )

    @property
    def open_pixels(self) -> int:
        """Pixels of maps that wait."""
        return sum(piece.box.area for piece in self._pieces.values())

    def add_empty(self, row: int, col: int) -> list[Clump]:
        """Say that block (row, col) has no foreground; return the clumps that this completes."""
        return self._arrive((row, col), {})

    def add(self, row: int, col: int, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[Clump]:
        """Take the foreground of block (row, col).

        Parameters
        ----------
        row, col : int
            Which block; each comes once.
        maps : (channels, h + 2 halo, w + 2 halo) float32
            The maps of the block and `context` pixels around it; zero outside the slide.
        mask : (h, w) bool
            The block's foreground.

        Returns
        -------
        list of Clump
            What is complete now: the block's own clumps as one entry, then those that waited for it.
        """
        box = self.block_box(row, col)
        if mask.shape != box.shape:
            raise ValueError(f"block ({row}, {col}) is {box.shape}, its mask {mask.shape}")
        labels, count = connected_components(mask, 8)
        closed = np.ones(count + 1, bool)
        closed[self._open_labels((row, col), labels)] = closed[0] = False
        done: list[Clump] = []
        if closed.any():
            done.append(Clump(box, select_labels(labels, closed), maps))
        numbers = self._cut_pieces(box, labels, np.flatnonzero(~closed[1:]) + 1, maps)
        sides = {d: numbers[_border(labels, d)] for d in self._neighbours((row, col), (*_SIDES, *_CORNERS))}
        return done + self._arrive((row, col), sides if numbers.any() else {})

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
        numbers = sorted(self._pieces)
        pieces = [self._pieces[number] for number in numbers]
        roots = [self._find(number) for number in numbers]
        edges = [(col, d[1], image) for col in range(cols) for d, image in self._lower_edges(rows - 1, col)]
        return {
            "rows": np.array([rows, self._next_piece, self.cuts], np.int64),
            "numbers": np.array(numbers, np.int64),
            "roots": np.array(roots, np.int64),
            "waiting": np.array([self._groups[root].waiting for root in roots], np.int64),
            "boxes": np.array([(p.box.row, p.box.col, *p.box.shape) for p in pieces], np.int64).reshape(-1, 4),
            "masks": _joined([np.packbits(p.mask) for p in pieces], np.uint8),
            "maps": _joined([p.maps.ravel() for p in pieces], np.float32),
            "channels": np.array([len(p.maps) for p in pieces[:1]], np.int64),
            "edge_places": np.array([(col, d, len(image)) for col, d, image in edges], np.int64).reshape(-1, 3),
            "edges": _joined([image for _, _, image in edges], np.int64),
        }

    def _lower_edges(self, row: int, col: int) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
        """Return the edges of block (row, col) that face the next row; none where it has no open piece."""
        arrived = self._arrived.get((row, col))
        return [(d, image) for d, image in arrived.sides.items() if d[0] == 1] if arrived else []

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up where `snapshot` left off, in a stitcher of the same grid that has seen nothing.

        Parameters
        ----------
        state : mapping of str to array
            What `snapshot` returned.
        """
        rows, self._next_piece, self.cuts = (int(value) for value in state["rows"])
        for row in range(rows):
            for col in range(len(self._col_edges) - 1):
                below = [d for d in self._neighbours((row, col), (*_SIDES, *_CORNERS)) if d[0] == 1]
                self._missing[row, col] = len(below) if row == rows - 1 else 0
                if self._missing[row, col]:
                    self._arrived[row, col] = _Arrived()
        self._restore_pieces(state)
        start = 0
        for col, d, length in state["edge_places"].tolist():
            self._arrived[rows - 1, col].sides[1, d] = np.array(state["edges"][start : start + length], np.int64)
            start += length

    def _restore_pieces(self, state: Mapping[str, NDArray[Any]]) -> None:
        mask_at = map_at = 0
        columns = (
            state["numbers"].tolist(),
            state["roots"].tolist(),
            state["waiting"].tolist(),
            state["boxes"].tolist(),
        )
        for number, root, waiting, place in zip(*columns, strict=True):
            box = Box(*place)
            packed = -(-box.area // 8)
            mask = np.unpackbits(state["masks"][mask_at : mask_at + packed], count=box.area).astype(bool)
            shape = (int(state["channels"][0]), *box.expand(self._halo).shape)
            size = shape[0] * shape[1] * shape[2]
            maps = np.array(state["maps"][map_at : map_at + size], np.float32).reshape(shape)
            mask_at, map_at = mask_at + packed, map_at + size
            self._pieces[number] = Clump(box, mask.reshape(box.shape), maps)
            self._parent[number] = root
            group = self._groups.setdefault(root, _Group([], waiting, box))
            group.pieces.append(number)
            group.box = _hull(group.box, box)

    def _neighbours(self, index: tuple[int, int], directions: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the directions in which the grid goes on."""
        rows, cols = len(self._row_edges) - 1, len(self._col_edges) - 1
        return [d for d in directions if 0 <= index[0] + d[0] < rows and 0 <= index[1] + d[1] < cols]

    def _open_labels(self, index: tuple[int, int], labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the labels that touch a side behind which the slide goes on."""
        borders = [_border(labels, d) for d in self._neighbours(index, _SIDES)]
        found = np.unique(np.concatenate(borders)) if borders else np.zeros(0, np.int32)
        return found[found > 0]

    def _cut_pieces(
        self, box: Box, labels: NDArray[np.int32], open_labels: NDArray[np.int64], maps: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Keep a crop of every open clump; return the number of its piece for each label, 0 for the others."""
        numbers = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        if not len(open_labels):
            return numbers
        places = label_boxes(labels, len(numbers) - 1)
        for label in open_labels.tolist():
            place = Box.between(*places[label].tolist())
            around = Box(place.row, place.col, place.height + 2 * self._halo, place.width + 2 * self._halo)
            piece = Clump(
                place.shift(box.row, box.col),
                labels[place.slices()] == label,
                maps[(slice(None), *around.slices())].copy(),
            )
            number = self._next_piece
            self._next_piece += 1
            numbers[label] = number
            self._pieces[number] = piece
            self._parent[number] = number
            self._groups[number] = _Group([number], 0, piece.box)
        return numbers

    def _arrive(self, index: tuple[int, int], sides: dict[tuple[int, int], NDArray[np.int64]]) -> list[Clump]:
        """Join the block to the neighbours that have come, and let the others be waited for."""
        if index in self._missing:
            raise ValueError(f"block {index} has come twice")
        directions = self._neighbours(index, (*_SIDES, *_CORNERS))
        self._arrived[index] = _Arrived(sides)
        self._missing[index] = len(directions)
        touched = {number for image in sides.values() for number in _numbers(image)}
        for d in directions:
            other = (index[0] + d[0], index[1] + d[1])
            mine = sides.get(d)
            if other not in self._missing:
                for number in _numbers(mine):
                    self._groups[self._find(number)].waiting += 1
                continue
            theirs = self._arrived[other].sides.get((-d[0], -d[1])) if other in self._arrived else None
            if mine is not None and theirs is not None:
                for a, b in sorted(_touching(mine, theirs)):
                    self._unite(a, b)
            for number in _numbers(theirs):
                self._groups[self._find(number)].waiting -= 1
                touched.add(number)
            self._settle(other)
            self._missing[index] -= 1
        if self._missing[index] == 0:
            self._arrived.pop(index, None)
        return self._close(touched)

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
        box = _hull(self._groups[a].box, self._groups[b].box)
        if box.area > self._limit:
            self.cuts += 1
            return
        keep, drop = (a, b) if len(self._groups[a].pieces) >= len(self._groups[b].pieces) else (b, a)
        gone = self._groups.pop(drop)
        group = self._groups[keep]
        group.pieces += gone.pieces
        group.waiting += gone.waiting
        group.box = box
        self._parent[drop] = keep

    def _close(self, numbers: set[int]) -> list[Clump]:
        """Return the clumps among `numbers` that wait for nothing, in the order of their first piece."""
        done = []
        for root in sorted({self._find(number) for number in numbers}):
            if self._groups[root].waiting == 0:
                done.append(self._assemble(self._groups.pop(root)))
        return done

    def _assemble(self, group: _Group) -> Clump:
        """Paste a group's pieces into one crop and forget them."""
        pieces = [self._pieces.pop(number) for number in group.pieces]
        for number in group.pieces:
            del self._parent[number]
        if len(pieces) == 1:
            return pieces[0]
        box, context = group.box, self._halo
        mask = np.zeros(box.shape, bool)
        maps = np.zeros((len(pieces[0].maps), box.height + 2 * context, box.width + 2 * context), np.float32)
        for piece in pieces:
            mask[piece.box.slices(box)] |= piece.mask
            around = piece.box.expand(context).slices(box.expand(context))
            # Overlapping crops agree: both are windows of the same maps.
            maps[(slice(None), *around)] = piece.maps
        return Clump(box, mask, maps)


def _numbers(image: NDArray[np.int64] | None) -> list[int]:
    """Return the distinct piece numbers in `image`, without 0."""
    if image is None:
        return []
    found = np.unique(image)
    return [int(number) for number in found[found > 0]]


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *arrays])
