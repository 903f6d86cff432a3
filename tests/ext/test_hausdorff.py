"""Hausdorff distances of overlaps against SciPy's and against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nuclix.ext.hausdorff import overlap_distances
from nuclix.ext.overlap import overlap_table


def plain(truth: NDArray[Any], prediction: NDArray[Any]) -> list[float]:
    from scipy.spatial.distance import directed_hausdorff

    distances = []
    for label in np.unique(truth[truth != 0]):
        mine = truth == label
        found = [
            max(
                directed_hausdorff(np.argwhere(mine), np.argwhere(mine & (prediction == other)))[0],
                directed_hausdorff(np.argwhere(mine & (prediction == other)), np.argwhere(mine))[0],
            )
            for other in np.unique(prediction[mine])
            if other
        ]
        distances.append(max(found, default=-1.0))
    return distances


def check(truth: NDArray[Any], prediction: NDArray[Any]) -> None:
    got = overlap_distances(truth, prediction, overlap_table(truth, prediction))
    np.testing.assert_allclose(got, plain(truth, prediction), rtol=0, atol=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_equals_scipy(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10))
    truth, prediction = (
        data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3), fill=st.just(0))) for _ in range(2)
    )
    check(truth, prediction)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_equals_scipy_on_blobs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = np.zeros((2, 40, 50), np.int32)
    rows, cols = np.mgrid[:40, :50]
    for image in (truth, prediction):
        for label in range(1, 9):
            row, col, radius, hole = rng.integers(0, 40), rng.integers(0, 50), rng.integers(2, 12), rng.integers(0, 6)
            distance = np.hypot(rows - row, cols - col)
            image[(distance <= radius) & (distance >= hole)] = label * 1000
    check(truth, prediction)
    check(np.asfortranarray(truth), np.asfortranarray(prediction))
    check(truth.astype(np.int64), np.asfortranarray(prediction))


def test_a_ring_whose_middle_is_farthest() -> None:
    truth = np.ones((21, 21), np.int32)
    prediction = np.ones_like(truth)
    prediction[1:-1, 1:-1] = 0
    assert overlap_distances(truth, prediction, overlap_table(truth, prediction)).tolist() == [10.0]


def test_a_perfect_prediction_is_at_distance_zero() -> None:
    labels = np.arange(1, 26).reshape(5, 5)
    assert not overlap_distances(labels, labels, overlap_table(labels, labels)).any()


def test_no_truth_and_a_strange_table() -> None:
    none, one = np.zeros((3, 3), np.int32), np.ones((3, 3), np.int32)
    assert overlap_distances(none, one, overlap_table(none, one)).shape == (0,)
    with pytest.raises(ValueError, match="must be the overlap table"):
        overlap_distances(one, one, overlap_table(none, one))
