"""Find the stored objects of a part of a slide without reading all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.segmentation.store import ObjectStore

_EMPTY = (np.inf, np.inf, -np.inf, -np.inf)  # box of nothing: touches no other


def object_boxes(objects: Objects) -> NDArray[np.float64]:
    """Return the bounding box of each object's outline.

    Parameters
    ----------
    objects : Objects
        N objects, each with an outline.

    Returns
    -------
    (N, 4) float64
        First row, first column, end row, end column, in pixels at the model's scale.
    """
    if not len(objects):
        return np.zeros((0, 4))
    starts = objects.offsets[objects.rings[:-1]]
    low = np.minimum.reduceat(objects.corners, starts, axis=0)
    high = np.maximum.reduceat(objects.corners, starts, axis=0)
    return np.concatenate([low, high], axis=1).astype(np.float64)


def touching(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of (N, 4) boxes share more than a border with a box (4,)."""
    inside = (boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])
    return np.asarray(inside.all(axis=1))


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """Where the blocks of a store lie.

    Attributes
    ----------
    boxes : (B, 4) float64
        Bounding box of all outlines of each block, as `object_boxes` gives those of objects.
    starts : (B + 1,) int64
        Number of the first object of each block, counted over the slide; the last one is the number of objects.
    """

    boxes: NDArray[np.float64]
    starts: NDArray[np.int64]

    def blocks_touching(self, box: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the blocks that may hold objects of a box (4,)."""
        return np.flatnonzero(touching(self.boxes, box))

    def block_of(self, number: int) -> tuple[int, int]:
        """Return the block of an object, and its place in the block.

        Raises
        ------
        IndexError
            If there is no object of that number.
        """
        if not 0 <= number < int(self.starts[-1]):
            raise IndexError(f"no object {number} among {int(self.starts[-1])}")
        block = int(np.searchsorted(self.starts, number, side="right")) - 1
        return block, number - int(self.starts[block])


class BlockIndexBuilder:
    """Collects a `BlockIndex` while the blocks of a store are read once."""

    def __init__(self) -> None:
        self._boxes: list[tuple[float, ...]] = []
        self._counts: list[int] = []

    def add(self, boxes: NDArray[np.float64]) -> None:
        """Add the next block by the boxes of its objects."""
        extent = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)) if len(boxes) else _EMPTY
        self._boxes.append(tuple(map(float, extent)))
        self._counts.append(len(boxes))

    def result(self) -> BlockIndex:
        """Return the index of what was added."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._counts, dtype=np.int64)])
        return BlockIndex(np.array(self._boxes, np.float64).reshape(-1, 4), starts)


def indexed_blocks(store: ObjectStore, builder: BlockIndexBuilder) -> Iterator[tuple[Objects, NDArray[np.float64]]]:
    """Yield the blocks of a store with the boxes of their objects, and add each to an index.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    for objects in store.blocks():
        boxes = object_boxes(objects)
        builder.add(boxes)
        yield objects, boxes
