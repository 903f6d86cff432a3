"""Scores against plain readings of their definitions, worked examples and what must hold for any images."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nuclix.engine.evaluation import scores
from nuclix.engine.evaluation.scores import METRICS, Counts, score
from nuclix.ext.overlap import aggregated_jaccard, overlap_table

SYMMETRIC = ("aji_disjoint", "pq", "dq", "sq", "object_f1", "mean_ap", "f1", "accuracy", "jaccard", "adc")


def label_images(high: int = 5, side: int = 8) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    def both(shape: tuple[int, ...]) -> st.SearchStrategy:
        image = hnp.arrays(np.int32, shape, elements=st.integers(0, high))
        near = st.builds(lambda a, b, keep: (a, np.where(keep, a, b)), image, image, hnp.arrays(bool, shape))
        return st.tuples(image, image) | near

    return hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=side).flatmap(both)


def masks(image: np.ndarray) -> list[np.ndarray]:
    return [image == label for label in np.unique(image) if label]


def plain_matches(truth: np.ndarray, prediction: np.ndarray, threshold: float) -> list[float]:
    pairs = itertools.product(masks(truth), masks(prediction))
    ious = [np.sum(a & b) / np.sum(a | b) for a, b in pairs]
    return [float(iou) for iou in ious if iou > threshold]


def plain_panoptic(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float, float]:
    found = plain_matches(truth, prediction, 0.5)
    size = len(masks(truth)) + len(masks(prediction))
    if not size:
        return 1.0, 1.0, 1.0
    dq = 2 * len(found) / size
    sq = sum(found) / len(found) if found else 0.0
    return dq * sq, dq, sq


def plain_mean_ap(truth: np.ndarray, prediction: np.ndarray) -> float:
    values = []
    for percent in range(50, 100, 5):
        tp = len([iou for iou in plain_matches(truth, prediction, 0) if iou > percent / 100 + 1e-12])
        size = len(masks(truth)) + len(masks(prediction)) - tp
        values.append(tp / size if size else 1.0)
    return sum(values) / 10


def plain_best_sum(truth: np.ndarray, prediction: np.ndarray) -> float:
    left, right = masks(truth), masks(prediction)
    if len(left) > len(right):
        left, right = right, left
    iou = [[np.sum(a & b) / np.sum(a | b) for b in right] for a in left]
    choices = itertools.permutations(range(len(right)), len(left))
    return max(sum(iou[row][col] for row, col in enumerate(choice)) for choice in choices)


@given(label_images())
@settings(max_examples=150)
def test_object_scores_equal_their_definitions(images: tuple[np.ndarray, np.ndarray]) -> None:
    found = score(*images)
    assert (found.pq, found.dq, found.sq) == pytest.approx(plain_panoptic(*images), abs=1e-12)
    assert found.mean_ap == pytest.approx(plain_mean_ap(*images), abs=1e-12)
    assert found.object_f1 == found.dq


@given(label_images())
@settings(max_examples=150)
def test_pixel_scores_equal_their_definitions(images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = (image > 0 for image in images)
    found = score(*images)
    assert found.accuracy == np.mean(truth == prediction)
    if truth.any() and prediction.any():
        precision, recall = truth[prediction].mean(), prediction[truth].mean()
        assert (found.precision, found.recall) == pytest.approx((precision, recall))
        assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall) if precision else 0.0)
        assert found.jaccard == pytest.approx((truth & prediction).sum() / (truth | prediction).sum())
    if truth.any() and not truth.all():
        assert found.perf == pytest.approx((prediction[truth].mean() + (~prediction)[~truth].mean()) / 2)


@given(label_images(high=6))
@settings(max_examples=150)
def test_the_pairing_of_aji_plus_is_the_best_there_is(images: tuple[np.ndarray, np.ndarray]) -> None:
    table = overlap_table(*images)
    pair = scores.optimal_pairs(table)
    for index in (table.truth_index[pair], table.prediction_index[pair]):
        assert len(set(index.tolist())) == len(pair)
    assert table.iou[pair].sum() == pytest.approx(plain_best_sum(*images))
    assert scores.aji_plus(table) == aggregated_jaccard(table, pair)


@given(label_images())
@settings(max_examples=100)
def test_every_score_is_finite_and_in_range(images: tuple[np.ndarray, np.ndarray]) -> None:
    for name, value in dataclasses.asdict(score(*images)).items():
        assert 0 <= value <= (math.hypot(*images[0].shape) if name == "ahd" else 1), name


@given(label_images(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_new_labels_change_nothing(images: tuple[np.ndarray, np.ndarray], pick) -> None:
    codes = [np.array([0, *pick.sample(range(1, 2**40), 5)]) for _ in images]
    relabelled = [code[image] for code, image in zip(codes, images, strict=True)]
    before, after = dataclasses.asdict(score(*images)), dataclasses.asdict(score(*relabelled))
    iou = overlap_table(*images).iou
    tied = len(np.unique(iou.round(12))) < len(iou)  # ties go by label order, so these three may then change
    for name in METRICS:
        if not (tied and name.startswith("aji")):
            assert after[name] == pytest.approx(before[name], abs=1e-12), name


@given(label_images())
@settings(max_examples=100)
def test_symmetric_scores_are_symmetric(images: tuple[np.ndarray, np.ndarray]) -> None:
    forth, back = score(*images), score(*images[::-1])
    iou = overlap_table(*images).iou
    tied = len(np.unique(iou.round(12))) < len(iou)
    for name in SYMMETRIC:
        if not (tied and name == "aji_disjoint"):
            assert getattr(forth, name) == pytest.approx(getattr(back, name), abs=1e-12), name
    assert (forth.precision, forth.object_precision) == (back.recall, back.object_recall)


@given(label_images())
@settings(max_examples=50)
def test_a_perfect_prediction_scores_one(images: tuple[np.ndarray, np.ndarray]) -> None:
    found = dataclasses.asdict(score(images[0], images[0] * 7))
    assert found == {name: 0.0 if name == "ahd" else 1.0 for name in METRICS}


def test_nothing_against_something() -> None:
    none, one = np.zeros((3, 4), np.int32), np.zeros((3, 4), np.int32)
    one[0, :3] = 1
    for truth, prediction in ((none, one), (one, none)):
        found = dataclasses.asdict(score(truth, prediction))
        assert found.pop("accuracy") == 0.75
        assert found.pop("perf") == (0.75 if truth is none else 0.5)
        assert found.pop("ahd") == 5.0
        assert set(found.values()) == {0.0}


def test_a_worked_example() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]])
    prediction = np.array([[4, 4, 4, 0, 0, 5, 0, 0, 0, 6]])
    found = score(truth, prediction)  # IoU: 3/4, 1/2, 1/2; only the first is over one half
    assert found.aji == found.aji_plus == found.aji_disjoint == 5 / 8
    assert (found.dq, found.sq, found.pq) == (1 / 3, 3 / 4, 1 / 4)
    assert (found.object_precision, found.object_recall) == (1 / 3, 1 / 3)
    assert found.mean_ap == pytest.approx(5 * (1 / 5) / 10)  # one match at 0.50 to 0.70, none at 0.75: not above it
    assert (found.precision, found.recall, found.f1) == (1.0, 5 / 8, pytest.approx(10 / 13))
    assert (found.jaccard, found.accuracy) == (5 / 8, 7 / 10)
    assert found.perf == (5 / 8 + 1) / 2
    assert found.ahd == 1.0


def test_the_three_ajis_part_where_one_prediction_covers_two_truths() -> None:
    truth = np.array([[1, 1, 1, 2, 2, 0, 0]])
    prediction = np.array([[1, 1, 1, 1, 1, 0, 0]])
    found = score(truth, prediction)
    assert found.aji == 5 / 10
    assert found.aji_disjoint == found.aji_plus == 3 / 7


def test_the_greedy_pairing_is_not_always_the_best() -> None:
    # Truth 1 has IoU 3/7 with prediction 1; the best sum gives that prediction to truth 2 and leaves truth 1 the other.
    truth = np.array([[1, 1, 1, 1, 1, 2, 2]])
    prediction = np.array([[2, 2, 1, 1, 1, 1, 1]])
    table = overlap_table(truth, prediction)
    assert table.iou.tolist() == pytest.approx([3 / 7, 2 / 5, 2 / 5])
    assert scores.aji_plus(table) == 4 / 10
    assert score(truth, prediction).aji_disjoint == 3 / (7 + 2 + 2)


def test_matches_are_exact_at_the_threshold() -> None:
    table = overlap_table(np.array([[1, 1, 2, 2, 2]]), np.array([[1, 0, 2, 2, 0]]))  # 1/2 and 2/3
    assert scores.matches(table).tolist() == [False, True]
    assert scores.matches(table, 66).tolist() == [False, True]
    assert scores.matches(table, 67).tolist() == [False, False]
    with pytest.raises(ValueError, match="not unique"):
        scores.matches(table, 49)


def test_counts_without_any_pixel() -> None:
    nothing = Counts(0, 0, 0, 0)
    assert {nothing.precision, nothing.recall, nothing.f1, nothing.jaccard, nothing.accuracy, nothing.perf} == {1.0}
    assert score(np.zeros((0, 5), int), np.zeros((0, 5), int)).aji == 1.0
