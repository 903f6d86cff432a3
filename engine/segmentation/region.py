"""The patches that regions of a slide need, so that their nuclei equal those of the whole slide.

A clump (a connected component of the foreground) is split as a whole. A region therefore needs, besides the patches
that it touches, those that the clumps in it reach into. Clumps leave a region through the patches along its boundary:
these are computed first, and `RegionPatches.extend` adds what their clumps reach into until none is cut. Then
`RegionPatches.complete` adds the patches inside, which no clump can leave unseen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.slide.tissue import TissueMask

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

EIGHT = np.ones((3, 3), np.int8)
_EDGE_STEPS = (-1, 0, 1)  # columns between 8-connected pixels of two rows


class RegionShapes:
    """Shapes that are asked which boxes they touch.

    Parameters
    ----------
    shapes : sequence of shapely geometry
        Polygons or MultiPolygons, (x, y) in pixels at the model's scale.
    """

    def __init__(self, shapes: Sequence[BaseGeometry]) -> None:
        import shapely

        self._parts = shapely.get_parts(list(shapes))
        shapely.prepare(self._parts)
        self._tree = shapely.STRtree(self._parts)

    def bounds(self) -> tuple[float, float, float, float]:
        """Return the least and greatest x and y as (x, y, x_end, y_end)."""
        import shapely

        x, y, x_end, y_end = shapely.total_bounds(self._parts).tolist()
        return x, y, x_end, y_end

    def touch(self, boxes: Sequence[Box]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which boxes the shapes touch, and which lie wholly inside one shape."""
        import shapely

        corners = np.array([(box.col, box.row, box.col_end, box.row_end) for box in boxes], np.float64).reshape(-1, 4)
        rectangles = shapely.box(*corners.T)
        touched, inside = np.zeros(len(boxes), np.bool_), np.zeros(len(boxes), np.bool_)
        touched[self._tree.query(rectangles, "intersects")[0]] = True
        inside[self._tree.query(rectangles, "within")[0]] = True
        return touched, inside

    def mask(self, box: Box) -> NDArray[np.bool_]:
        """Return the (height, width) mask of a box's pixels that the shapes touch, or nearly do."""
        import shapely
        from PIL import Image, ImageDraw

        out = np.zeros(box.shape, np.bool_)
        window = shapely.box(box.col - 2, box.row - 2, box.col_end + 2, box.row_end + 2)
        for index in self._tree.query(window, "intersects"):
            for part in shapely.get_parts(shapely.intersection(self._parts[index], window)):
                if part.geom_type != "Polygon":
                    continue
                image = Image.new("1", (box.width, box.height))
                draw = ImageDraw.Draw(image)
                rings = [part.exterior, *part.interiors]
                corners = [[(x - box.col, y - box.row) for x, y in ring.coords] for ring in rings]
                draw.polygon(corners[0], fill=1)
                for hole in corners[1:]:
                    draw.polygon(hole, fill=0)
                for ring in corners:
                    draw.line(ring, fill=1, width=3)
                out |= np.asarray(image)
        return out


@dataclass(frozen=True, slots=True)
class _Part:
    """Foreground of a part of the slide: which clump the pixels along its edges belong to, numbered over all parts."""

    box: Box
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]


class RegionPatches:
    """Chooses the patches of regions; takes the place of a `TissueMask` in the pipeline.

    Parameters
    ----------
    shapes : RegionShapes
        In pixels at the model's scale.
    grid : TileGrid
        The slide's grid.
    tissue : TissueMask or None
        Where to compute within the regions; None computes everywhere.
    context : int
        Of the post-processor, in pixels.
    """

    def __init__(self, shapes: RegionShapes, grid: TileGrid, tissue: TissueMask | None, context: int) -> None:
        self._shapes = shapes
        self._grid = grid
        self._tissue = tissue
        self._reach = context + 1
        self._parts: list[_Part] = []
        self._count = 0  # clumps of parts so far
        self._touching: list[int] = []
        self._reached: list[tuple[int, tuple[int, int]]] = []
        self._cells, self._inner = self._cells_of_shapes(context)
        self._border_only = True

    def _cells_of_shapes(self, context: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """Return the cells of the patch grid that the shapes touch, and those of them that lie wholly inside."""
        valid = self._grid.patch.valid
        x, y, x_end, y_end = self._shapes.bounds()
        slide = Box(0, 0, self._grid.height, self._grid.width)
        around = Box.between(int(y) - 1, int(x) - 1, int(y_end) + 2, int(x_end) + 2).intersect(slide)
        if not around.area:
            return set(), set()
        around = around.expand(context).intersect(slide)
        rows = range(around.row // valid, -(-around.row_end // valid))
        cols = range(around.col // valid, -(-around.col_end // valid))
        cells = list(itertools.product(rows, cols))
        boxes = [self._box(cell).expand(context) for cell in cells]
        touched, inside = self._shapes.touch(boxes)
        taken = {cell for cell, wanted in zip(cells, touched, strict=True) if wanted}
        return taken, {cell for cell, wanted in zip(cells, inside, strict=True) if wanted}

    def _box(self, cell: tuple[int, int]) -> Box:
        valid = self._grid.patch.valid
        return Box(cell[0] * valid, cell[1] * valid, valid, valid)

    def within(self, box: Box, reach: int) -> Box | None:
        """Return the part of a patch's middle `box` that is needed: the part near tissue, as without regions."""
        valid = self._grid.patch.valid
        cell = (box.row // valid, box.col // valid)
        if cell not in self._cells or (self._border_only and cell in self._inner):
            return None
        return box if self._tissue is None else self._tissue.within(box, reach)

    def record(self, box: Box, mask: NDArray[np.bool_]) -> None:
        """Take the foreground of a part of the slide."""
        from scipy import ndimage

        if not mask.any():
            return
        clumps, count = ndimage.label(mask, EIGHT, output=np.int32)

        def numbered(edge: NDArray[np.int32]) -> NDArray[np.int64]:
            return np.where(edge > 0, edge.astype(np.int64) + self._count, 0)

        self._parts.append(_Part(box, *map(numbered, (clumps[0], clumps[-1], clumps[:, 0], clumps[:, -1]))))
        self._touching += (_labels(clumps[self._shapes.mask(box)]) + self._count).tolist()
        for cell in self._neglected_near(box):
            near = self._box(cell).expand(self._reach).intersect(box)
            self._reached += [(self._count + int(label), cell) for label in _labels(clumps[near.slices(box)])]
        self._count += count

    def _neglected_near(self, box: Box) -> Iterator[tuple[int, int]]:
        """Yield the cells within reach of a box that are not computed although they hold tissue."""
        valid, around = self._grid.patch.valid, box.expand(self._reach)
        around = around.intersect(Box(0, 0, self._grid.height, self._grid.width))
        for row in range(around.row // valid, -(-around.row_end // valid)):
            for col in range(around.col // valid, -(-around.col_end // valid)):
                if (row, col) not in self._cells and self._has_tissue((row, col)):
                    yield row, col

    def _has_tissue(self, cell: tuple[int, int]) -> bool:
        return self._tissue is None or self._tissue.within(self._box(cell), self._grid.patch.margin) is not None

    def extend(self) -> bool:
        """Add the patches that clumps of the regions reach into; return whether there are any.

        Forgets the foreground that it was given.
        """
        groups = self._groups()
        touching = set(groups[self._touching].tolist())
        new = {cell for label, cell in self._reached if int(groups[label]) in touching}
        self._cells |= new
        self._parts.clear()
        self._touching.clear()
        self._reached.clear()
        self._count = 0
        return bool(new)

    def complete(self) -> bool:
        """Let the patches inside the regions be computed too; return whether there are any."""
        self._border_only = False
        return bool(self._inner)

    def _groups(self) -> NDArray[np.int32]:
        """Return for each clump of a part which clump of the slide it belongs to."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        tops: dict[int, list[_Part]] = {}
        lefts: dict[int, list[_Part]] = {}
        for part in self._parts:
            tops.setdefault(part.box.row, []).append(part)
            lefts.setdefault(part.box.col, []).append(part)
        pairs = [np.zeros((2, 0), np.int64)]
        for part in self._parts:
            for below in tops.get(part.box.row_end, ()):
                pairs.append(_adjacent(part.bottom, part.box.col, below.top, below.box.col))
            for neighbour in lefts.get(part.box.col_end, ()):
                pairs.append(_adjacent(part.right, part.box.row, neighbour.left, neighbour.box.row))
        one, other = np.concatenate(pairs, axis=1)
        size = self._count + 1
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
        groups: NDArray[np.int32] = connected_components(graph, directed=False)[1]
        return groups


def _labels(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the labels that occur, without background."""
    found = np.unique(values)
    return found[found > 0]


def _adjacent(one: NDArray[np.int64], start: int, other: NDArray[np.int64], other_start: int) -> NDArray[np.int64]:
    """Return (2, n) pairs of labels of two edges that face each other, 8-connected; 0 is background."""
    pairs = [np.zeros((2, 0), np.int64)]
    for step in _EDGE_STEPS:
        first = max(start, other_start - step)
        last = min(start + len(one), other_start - step + len(other))
        if first < last:
            facing = np.stack([one[first - start : last - start], other[first + step - other_start :][: last - first]])
            pairs.append(np.unique(facing[:, (facing > 0).all(axis=0)], axis=1))
    return np.concatenate(pairs, axis=1)
