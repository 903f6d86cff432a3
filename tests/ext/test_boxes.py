"""Boxes equal SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import find_objects

from nuclix.ext.boxes import label_boxes

COUNT = 6
IMAGES = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(0, COUNT))
)


@given(labels=IMAGES)
def test_boxes_are_those_of_scipy(labels: np.ndarray) -> None:
    boxes = label_boxes(labels, COUNT)
    assert boxes.shape == (COUNT + 1, 4) and boxes.dtype == np.int32
    for label, found in enumerate(find_objects(labels, COUNT), 1):
        row, col, row_end, col_end = boxes[label]
        if found is None:
            assert tuple(boxes[label]) == (*labels.shape, 0, 0)
        else:
            assert found == (slice(row, row_end), slice(col, col_end))


def test_read_only_strided_and_empty_images() -> None:
    labels = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::3]
    labels.flags.writeable = False
    assert label_boxes(labels, 24)[15].tolist() == [1, 1, 2, 2]
    assert label_boxes(np.zeros((0, 3), np.int32), 1).tolist() == [[0, 3, 0, 0], [0, 3, 0, 0]]


@pytest.mark.parametrize("bad", [np.array([[-1]], np.int32), np.array([[3]], np.int32)])
def test_labels_out_of_range_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels"):
        label_boxes(bad, 2)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="labels"):
        label_boxes(np.zeros((2, 2), np.int64), 1)
    with pytest.raises(ValueError, match="labels"):
        label_boxes(np.zeros(4, np.int32), 1)
