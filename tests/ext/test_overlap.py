"""The overlap table and the Aggregated Jaccard Index against plain loops over full masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nuclix.ext.overlap import OverlapTable, aji, aji_disjoint, overlap_table

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u2"]


def plain_pairs(truth: NDArray[Any], prediction: NDArray[Any]) -> dict[tuple[int, int], int]:
    pairs: dict[tuple[int, int], int] = {}
    for a, b in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if a and b:
            pairs[int(a), int(b)] = pairs.get((int(a), int(b)), 0) + 1
    return pairs


def pairs_of(table: OverlapTable) -> dict[tuple[int, int], int]:
    keys = zip(table.truth_labels[table.truth_index], table.prediction_labels[table.prediction_index], strict=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(keys, table.intersection, strict=True)}


def check(truth: NDArray[Any], prediction: NDArray[Any]) -> OverlapTable:
    table = overlap_table(truth, prediction)
    assert pairs_of(table) == plain_pairs(truth, prediction)
    for image, labels, areas in (
        (truth, table.truth_labels, table.truth_areas),
        (prediction, table.prediction_labels, table.prediction_areas),
    ):
        values, counts = np.unique(image[image != 0], return_counts=True)
        np.testing.assert_array_equal(labels, values)
        np.testing.assert_array_equal(areas, counts)
    order = np.lexsort((table.prediction_index, table.truth_index))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert table.pixels == truth.size
    return table


def usual_aji(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """The usual code: full masks of every object; a prediction may serve several truths."""
    truths = [truth == label for label in np.unique(truth) if label]
    predictions = [prediction == label for label in np.unique(prediction) if label]
    if not truths and not predictions:
        return 1.0
    used = set()
    numerator = denominator = 0
    for mask in truths:
        best, best_iou = -1, 0.0
        for index, other in enumerate(predictions):
            iou = (mask & other).sum() / (mask | other).sum()
            if iou > best_iou:
                best, best_iou = index, iou
        if best < 0:
            denominator += mask.sum()
            continue
        used.add(best)
        numerator += (mask & predictions[best]).sum()
        denominator += (mask | predictions[best]).sum()
    denominator += sum(mask.sum() for index, mask in enumerate(predictions) if index not in used)
    return float(numerator / denominator)


def plain_disjoint_aji(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    truths = [truth == label for label in np.unique(truth) if label]
    predictions = [prediction == label for label in np.unique(prediction) if label]
    if not truths and not predictions:
        return 1.0
    numerator = denominator = 0
    left, right = list(truths), list(predictions)
    while True:
        choices = [((a & b).sum() / (a | b).sum(), i, j) for i, a in enumerate(left) for j, b in enumerate(right)]
        choices = [choice for choice in choices if choice[0] > 0]
        if not choices:
            break
        _, i, j = max(choices, key=lambda choice: (choice[0], -choice[1], -choice[2]))
        numerator += (left[i] & right[j]).sum()
        denominator += (left[i] | right[j]).sum()
        del left[i], right[j]
    denominator += sum(mask.sum() for mask in left + right)
    return float(numerator / denominator)


def label_images(high: int = 6) -> st.SearchStrategy[tuple[NDArray[Any], NDArray[Any]]]:
    def both(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
        image = hnp.arrays(np.int32, shape, elements=st.integers(0, high))
        return st.tuples(image, image)

    return hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9).flatmap(both)


@given(label_images())
@settings(max_examples=200, deadline=None)
def test_equals_plain_loops(images: tuple[NDArray[Any], NDArray[Any]]) -> None:
    truth, prediction = images
    table = check(truth, prediction)
    assert aji(table) == pytest.approx(usual_aji(truth, prediction), abs=1e-12)
    assert aji_disjoint(table) == pytest.approx(plain_disjoint_aji(truth, prediction), abs=1e-12)
    assert aji_disjoint(table.swapped()) == pytest.approx(aji_disjoint(overlap_table(prediction, truth)), abs=1e-12)


@pytest.mark.parametrize("first", DTYPES)
@pytest.mark.parametrize("second", DTYPES)
def test_every_pair_of_dtypes(first: str, second: str) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, (13, 29)).astype(first)
    prediction = np.repeat(rng.integers(0, 5, (13, 1)), 29, axis=1).astype(second)
    table = check(truth, prediction)
    for dtype, labels in ((first, table.truth_labels), (second, table.prediction_labels)):
        assert labels.dtype == (np.uint8 if dtype == "bool" else np.dtype(dtype).newbyteorder("="))


@pytest.mark.parametrize("order", ["CC", "FF", "CF", "FC", "strided", "flipped"])
def test_every_memory_order_and_read_only(order: str) -> None:
    rng = np.random.default_rng(2)
    truth, prediction = rng.integers(0, 4, (2, 20, 31), dtype=np.int32)
    expected = pairs_of(check(truth, prediction))
    if order == "strided":
        views = [np.repeat(np.repeat(image, 2, 0), 3, 1)[::2, ::3] for image in (truth, prediction)]
    elif order == "flipped":
        views = [image[::-1, ::-1].copy()[::-1, ::-1] for image in (truth, prediction)]
    else:
        views = [
            np.require(image, requirements=letter) for image, letter in zip((truth, prediction), order, strict=True)
        ]
    before = [view.copy() for view in views]
    for view in views:
        view.flags.writeable = False
    assert pairs_of(overlap_table(*views)) == expected
    for view, copy in zip(views, before, strict=True):
        np.testing.assert_array_equal(view, copy)


def test_the_callers_array_stays_writable() -> None:
    truth = np.ones((3, 3), np.uint32)
    overlap_table(truth, truth)
    assert truth.flags.writeable


def test_more_labels_than_sixteen_bits_and_huge_values() -> None:
    truth = np.arange(1, 1 + 300 * 300, dtype=np.int64).reshape(300, 300)
    table = overlap_table(truth, truth[::-1])
    assert len(table.truth_labels) == len(table.intersection) == 90_000
    assert overlap_table(truth.astype(np.int32), truth.astype(np.int32)).truth_labels[-1] == 90_000
    big = np.array([[2**64 - 1, 2**63, 1, 0]], np.uint64)
    table = check(big, np.array([[2**63 - 1, 2**63 - 1, 1, 1]], np.int64))
    assert table.truth_labels.tolist() == [1, 2**63, 2**64 - 1]
    wide = np.array([[2**32 + 1, 1]], np.int64)  # equal in the low 32 bits
    assert check(wide, np.array([[1, 1]], np.int8)).truth_areas.tolist() == [1, 1]


@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100])
def test_runs_that_end_anywhere(width: int) -> None:
    for end in range(width + 1):
        truth = np.zeros((2, width), np.int32)
        truth[0, :end] = 3
        check(truth, np.roll(truth, 1, 1))


def test_bad_input_is_refused() -> None:
    good = np.zeros((2, 3), np.int32)
    with pytest.raises(TypeError, match=r"`prediction` is float64"):
        overlap_table(good, good.astype(float))
    with pytest.raises(ValueError, match="`truth` has 3 dimensions"):
        overlap_table(np.zeros((2, 3, 3), int), good)
    with pytest.raises(ValueError, match=r"`prediction` has shape \(3, 2\).*\(2, 3\)"):
        overlap_table(good, good.T)
    for dtype in ("i1", "i2", "i4", "i8"):
        with pytest.raises(ValueError, match="negative label -1"):
            overlap_table(np.array([[-1, 1]], dtype), np.array([[1, 1]], "i8"))


def test_a_prediction_that_serves_two_truths() -> None:
    truth = np.array([[1, 1, 2, 2, 0]])
    prediction = np.array([[1, 1, 1, 1, 2]])
    table = overlap_table(truth, prediction)
    assert aji(table) == (2 + 2) / (4 + 4 + 1)
    assert aji_disjoint(table) == 2 / (4 + 2 + 1)


def test_a_truth_that_overlaps_nothing_takes_no_prediction() -> None:
    truth = np.array([[1, 0, 2, 2]])
    prediction = np.array([[0, 0, 5, 5]])
    assert aji(overlap_table(truth, prediction)) == 2 / 3


@pytest.mark.parametrize("metric", [aji, aji_disjoint])
def test_empty_images(metric: Any) -> None:
    none, one = np.zeros((4, 4), np.int32), np.ones((4, 4), np.int32)
    assert metric(overlap_table(none, none)) == 1.0
    assert metric(overlap_table(one, none)) == 0.0
    assert metric(overlap_table(none, one)) == 0.0
    assert metric(overlap_table(none[:0], none[:0])) == 1.0
