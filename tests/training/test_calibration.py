"""Calibrated scores: monotone, honest on images that were not fitted on, and the same through `nuclix run`."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.engine.contracts import CalibratesScores
from nuclix.engine.segmentation.classes import find_nuclei
from nuclix.engine.training.calibration import Judged, average_precision, fit_curve, judged, reliability
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.plot import reliability_plot
from nuclix.plugins.postprocessors.dist import Dist
from nuclix.plugins.recipes.dist import DistRecipe


def drawn(count: int, seed: int) -> Judged:
    """Nuclei whose raw score r in 0..10 matches with probability (r / 10)^2."""
    rng = np.random.default_rng(seed)
    raw = rng.random(count) * 10
    return Judged(raw, rng.random(count) < (raw / 10) ** 2)


def test_probabilities_are_found_again() -> None:
    curve = fit_curve([drawn(20000, 0)])
    assert curve is not None
    at = np.array([2.0, 4.0, 6.0, 8.0])
    assert np.abs(curve(at) - (at / 10) ** 2).max() < 0.04


def test_scores_of_unseen_images_mean_precision() -> None:
    found = reliability([drawn(2000, seed) for seed in range(4)])
    assert found is not None and found.nuclei == 8000
    assert found.calibration_error < 0.03
    assert found.brier < found.precision * (1 - found.precision)


def test_a_score_that_says_nothing_gets_the_precision_everywhere() -> None:
    rng = np.random.default_rng(0)
    items = [Judged(rng.random(3000), rng.random(3000) < 0.7) for _ in range(3)]
    curve = fit_curve(items)
    assert curve is not None and np.abs(curve(np.linspace(0, 1, 20)) - 0.7).max() < 0.06


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), min_size=80, max_size=300))
def test_the_curve_rises_within_0_and_1(pairs: list[tuple[float, bool]]) -> None:
    raw, matched = (np.array(part) for part in zip(*pairs, strict=True))
    curve = fit_curve([Judged(raw.astype(np.float64), matched.astype(bool))])
    assert curve is not None
    assert (np.diff(curve.raw) > 0).all() and (np.diff(curve.probability) >= 0).all()
    assert curve.probability.min() >= 0 and curve.probability.max() <= 1
    assert curve.probability.mean() >= 0 and Dist(
        score_distance=tuple(curve.raw.tolist()), score_probability=tuple(curve.probability.tolist())
    )


def test_too_few_nuclei_give_no_curve() -> None:
    assert fit_curve([]) is None and fit_curve([drawn(50, 0)]) is None and reliability([drawn(100, 0)]) is None


def test_average_precision_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.8, 0.1])
    assert average_precision(score, np.array([True, True, False, True])) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(score, np.zeros(4, bool)) == 0


def test_the_bins_of_the_reliability_plot_hold_every_nucleus_once() -> None:
    found = reliability([drawn(2000, seed) for seed in range(4)])
    assert found is not None
    scores, shares, counts = zip(*found.bins, strict=True)
    assert sum(counts) == found.nuclei and list(scores) == sorted(scores)
    weighted = sum(count * abs(score - share) for score, share, count in found.bins) / found.nuclei
    assert weighted == pytest.approx(found.calibration_error, abs=2e-4)
    assert sum(share * count for share, count in zip(shares, counts, strict=True)) / found.nuclei == pytest.approx(
        found.precision, abs=2e-4
    )
    assert ET.fromstring(reliability_plot(found.bins)).tag.endswith("svg")
    assert ET.fromstring(reliability_plot([])).tag.endswith("svg")


def squares(heights: list[float]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    maps, labels = np.zeros((1, 20, 20 * len(heights)), np.float32), np.zeros((20, 20 * len(heights)), np.int32)
    for index, height in enumerate(heights):
        part = slice(20 * index + 5, 20 * index + 15)
        maps[0, 5:15, part] = height
        labels[5:15, part] = index + 1
    return maps, labels


def test_dist_scores_follow_the_mean_distance() -> None:
    post = Dist(p1=0.1, score_distance=(1.0, 3.0), score_probability=(0.2, 0.8))
    maps, labels = squares([1.0, 2.0, 5.0, 0.6])
    found = find_nuclei(post, maps, post.foreground(maps), None)
    assert (found.labels == labels).all() and found.scores is not None
    assert found.scores.tolist() == pytest.approx([0.2, 0.5, 0.8, 0.2])
    assert isinstance(post, CalibratesScores)
    assert find_nuclei(Dist(p1=0.1), maps, maps[0] > 0.5, None).scores is None


def test_matches_are_those_above_one_half() -> None:
    maps, labels = squares([1.0, 2.0])
    truth = labels.copy()
    truth[:, 25:31] = 0  # four of the ten columns of the second remain: an IoU of 0.4
    found = judged(
        DistRecipe(), [Annotated("a", np.zeros((20, 40, 3), np.uint8), truth)], [maps], {"p1": 0.1, "p2": 0.5}
    )
    assert found[0].matched.tolist() == [True, False] and found[0].raw.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [(((1.0,), ()), "equally many"), (((2.0, 1.0), (0.1, 0.2)), "must rise"), (((1.0,), (1.5,)), r"0\.\.1")],
)
def test_bad_knots_are_refused(values: tuple[tuple[float, ...], tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dist(score_distance=values[0], score_probability=values[1])
