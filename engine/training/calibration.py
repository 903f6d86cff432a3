"""Detection scores that are probabilities: how often a nucleus with such a raw score matches an annotated one.

A monotone function from a post-processor's raw score to the share of matches (IoU over 0.5) is fitted by isotonic
regression on held-out images, so that a threshold of 0.8 keeps nuclei of which at least about four in five are right,
on tissue like that of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import CalibratesScores
from nuclix.engine.evaluation.scores import matches
from nuclix.engine.training.validation import label, make_postprocessor

if TYPE_CHECKING:
    from nuclix.engine.training.contracts import Annotated, Recipe

MAX_KNOTS = 12  # groups of nuclei with the same number of members, each one point of the function
MIN_MEMBERS = 40  # of a group: its share of matches then has a standard error below 0.08
BINS = 10  # of the reliability table
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Judged:
    """The nuclei found in one image: (N,) raw scores, and whether each matches an annotated nucleus."""

    raw: NDArray[np.float64]
    matched: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """A piecewise-linear function from raw score to probability; constant beyond its ends.

    Attributes
    ----------
    raw, probability : (K,) float64
        Its knots, rising.
    """

    raw: NDArray[np.float64]
    probability: NDArray[np.float64]

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each raw score."""
        return np.interp(raw, self.raw, self.probability)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How good calibrated scores are on images that they were not fitted on.

    Attributes
    ----------
    nuclei : int
        How many were judged.
    precision : float
        Share of all found nuclei that match.
    brier : float
        Mean squared difference of score and match; precision * (1 - precision) is what a constant score has.
    calibration_error : float
        Mean difference of score and share of matches over ten bins of the score, weighted by their members.
    average_precision : float
        Area under precision over the share of matched nuclei kept, as the threshold falls.
    bins : tuple of (float, float, int)
        Of each tenth of the scores that has nuclei: mean score, share of matches, number of nuclei.
    """

    nuclei: int
    precision: float
    brier: float
    calibration_error: float
    average_precision: float
    bins: tuple[tuple[float, float, int], ...] = ()


def judged(
    recipe: Recipe, images: Sequence[Annotated], maps: Sequence[NDArray[np.float32]], parameters: Mapping[str, Any]
) -> list[Judged]:
    """Return the raw scores and matches of what is found in each image; empty if the post-processor gives none.

    Parameters
    ----------
    recipe : Recipe
        Names the post-processor.
    images : sequence of Annotated
        Held-out images.
    maps : sequence of (channels, H, W) float32
        Their predicted maps.
    parameters : mapping
        Of the post-processor.
    """
    from nuclix.ext.overlap import overlap_table

    processor = make_postprocessor(recipe, parameters)
    if not isinstance(processor, CalibratesScores):
        return []
    found = []
    for item, predicted in zip(images, maps, strict=True):
        labels = label(processor, predicted)
        table = overlap_table(item.labels, labels)
        matched = np.zeros(len(table.prediction_labels), np.bool_)
        matched[table.prediction_index[matches(table)]] = True
        found.append(Judged(processor.raw_scores(predicted, labels), matched))
    return found


def fit_curve(items: Sequence[Judged]) -> Curve | None:
    """Fit the function from raw score to probability of a match; None with too few nuclei for two points.

    Nuclei are sorted by raw score and cut into at most `MAX_KNOTS` groups of equal size; isotonic regression makes the
    groups' shares of matches rise.

    Parameters
    ----------
    items : sequence of Judged
        By image.
    """
    from scipy.optimize import isotonic_regression

    raw = np.concatenate([item.raw for item in items]) if items else np.empty(0)
    if len(raw) < 2 * MIN_MEMBERS:
        return None
    matched = np.concatenate([item.matched for item in items])
    order = np.argsort(raw, kind="stable")
    groups = np.array_split(order, min(MAX_KNOTS, len(raw) // MIN_MEMBERS))
    sizes = np.array([len(group) for group in groups], np.float64)
    shares = np.array([matched[group].mean() for group in groups])
    places = np.array([raw[group].mean() for group in groups])
    rising = isotonic_regression(shares, weights=sizes).x
    distinct = np.concatenate([[True], np.diff(places) > 0])
    return Curve(places[distinct], np.clip(rising[distinct], 0.0, 1.0))


def reliability(items: Sequence[Judged]) -> Reliability | None:
    """Judge calibrated scores image by image, each by a function fitted on the other images; None with too little data.

    Parameters
    ----------
    items : sequence of Judged
        By image.
    """
    scores, matched = [], []
    for index, item in enumerate(items):
        curve = fit_curve([other for place, other in enumerate(items) if place != index])
        if curve is None:
            return None
        scores.append(curve(item.raw))
        matched.append(item.matched)
    if not scores:
        return None
    score, match = np.concatenate(scores), np.concatenate(matched)
    if not len(score):
        return None
    places = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums, matches_of = np.bincount(places, score, BINS), np.bincount(places, match, BINS)
    gaps = np.abs(sums - matches_of)
    rows = [(sums[i] / counts[i], matches_of[i] / counts[i], int(counts[i])) for i in np.flatnonzero(counts)]
    return Reliability(
        int(counts.sum()),
        round(float(match.mean()), DIGITS),
        round(float(np.mean((score - match) ** 2)), DIGITS),
        round(float(gaps.sum() / counts.sum()), DIGITS),
        round(average_precision(score, match), DIGITS),
        tuple((round(float(mean), DIGITS), round(float(share), DIGITS), count) for mean, share, count in rows),
    )


def average_precision(score: NDArray[np.float64], matched: NDArray[np.bool_]) -> float:
    """Return the mean precision at each match, from the highest score down; equal scores are taken together.

    Examples
    --------
    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    0.8333333333333333
    """
    if not matched.any():
        return 0.0
    values, place = np.unique(-score, return_inverse=True)
    found = np.cumsum(np.bincount(place, minlength=len(values)))
    right = np.bincount(place, matched, len(values))
    precision = np.cumsum(right) / found
    return float((precision * right).sum() / right.sum())
