"""Clumps of a block against SciPy's components: which are open, where they lie, what the sides show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nuclix.ext.block_clumps import SIDES, block_clumps

MASKS = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda shape: arrays(bool, shape))
LINES = {
    (-1, 0): np.s_[0, :], (1, 0): np.s_[-1, :], (0, -1): np.s_[:, 0], (0, 1): np.s_[:, -1],
    (-1, -1): np.s_[:1, 0], (-1, 1): np.s_[:1, -1], (1, -1): np.s_[-1:, 0], (1, 1): np.s_[-1:, -1],
}  # fmt: skip


@given(mask=MASKS, sides=st.sets(st.sampled_from(sorted(SIDES))))
def test_clumps_are_those_of_scipy(mask: np.ndarray, sides: set[tuple[int, int]]) -> None:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    touching = np.unique(np.concatenate([np.zeros(1, labels.dtype), *(labels[LINES[side]] for side in sides)]))[1:]
    found = block_clumps(mask, sides)
    opened = np.zeros_like(labels)
    for number, (box, pixels) in enumerate(zip(found.boxes.tolist(), found.pixels_of(), strict=True), 1):
        part = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
        part.reshape(-1)[pixels] = True
        assert np.all(np.diff(pixels) > 0)
        assert part.any(axis=0).all() or part.any(axis=0)[[0, -1]].all()
        opened[box[0] : box[2], box[1] : box[3]][part] = number
    names = np.zeros(labels.max() + 1, int)
    names[touching] = np.arange(1, len(touching) + 1)
    np.testing.assert_array_equal(opened, names[labels])
    np.testing.assert_array_equal(found.closed, mask & (opened == 0))
    assert found.any_closed == found.closed.any() and len(found) == len(touching)
    for direction, line in LINES.items():
        np.testing.assert_array_equal(found.along(direction), opened[line])
    for (row, col, *_), box in zip(found.boxes, ndimage.find_objects(opened), strict=True):
        assert (row, col) == (box[0].start, box[1].start)


def test_masks_in_any_memory_order_and_empty_ones() -> None:
    mask = np.tri(7, 5, dtype=np.uint8)
    for array in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2], mask.astype(bool)):
        assert block_clumps(array, [(0, -1)]).boxes.tolist() == [[0, 0, 7, 5]]
    for shape in ((0, 4), (4, 0)):
        found = block_clumps(np.zeros(shape, bool), SIDES)
        assert not found.any_closed and len(found) == 0 and found.closed.shape == shape


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no side"):
        block_clumps(np.ones((2, 2), bool), [(1, 1)])
