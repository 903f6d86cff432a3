"""Every score of two label images, from their overlap table; docs/metrics.md gives the formulas and their sources.

An image without a nucleus is a valid image: where a ratio would be 0/0 the functions say what holds, and none returns
NaN. Nothing to find and nothing found is perfect; nothing found though there was something, or the reverse, is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nuclix.ext.overlap import OverlapTable

T = TypeVar("T")

MATCH_PERCENT = 50  # an object is found if its IoU exceeds one half; then no two matches share an object
MAP_PERCENTS = tuple(range(50, 100, 5))  # Data Science Bowl 2018: 0.50, 0.55 ... 0.95


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one image; lower is better for `ahd` alone.

    Attributes
    ----------
    aji : float
        Aggregated Jaccard Index (DIST, eq. 6); a prediction may serve several truths, as in Kumar's final script.
    aji_disjoint : float
        The same under eq. 6's clause that no prediction serves two truths.
    aji_plus : float
        The same with the one-to-one pairing whose IoUs have the largest sum (Graham et al. 2019).
    pq, dq, sq : float
        Panoptic, detection and segmentation quality at IoU > 0.5 (Kirillov et al. 2019).
    object_precision, object_recall, object_f1 : float
        Of objects at IoU > 0.5; `object_f1` equals `dq`.
    mean_ap : float
        TP / (TP + FP + FN) averaged over the IoU thresholds 0.5 to 0.95 (multi-head paper, eq. 2).
    f1, precision, recall, accuracy, jaccard : float
        Of pixels, nucleus against background; `f1` is the Dice coefficient (DIST, eq. 5).
    perf : float
        Mean of the pixels' true positive and true negative rates (ISBI draft).
    ahd : float
        Average Hausdorff distance in pixels (attention paper).
    adc : float
        Dice coefficient of the pixels, whose mean over images is the attention paper's ADC; equals `f1`.
    """

    aji: float
    aji_disjoint: float
    aji_plus: float
    pq: float
    dq: float
    sq: float
    object_precision: float
    object_recall: float
    object_f1: float
    mean_ap: float
    f1: float
    precision: float
    recall: float
    accuracy: float
    jaccard: float
    perf: float
    ahd: float
    adc: float


METRICS = tuple(field.name for field in fields(Scores))
LOWER_IS_BETTER = frozenset({"ahd"})


@dataclass(frozen=True, slots=True)
class Counts:
    """True and false positives and negatives; of objects there are no true negatives (0)."""

    tp: int
    fp: int
    fn: int
    tn: int = 0

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return ratio(self.tp, self.tp + self.fp, self.fn == 0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return ratio(self.tp, self.tp + self.fn, self.fp == 0)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall, and the Dice coefficient."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, True)

    @property
    def jaccard(self) -> float:
        """TP / (TP + FP + FN)."""
        return ratio(self.tp, self.tp + self.fp + self.fn, True)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all."""
        return ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn, True)

    @property
    def perf(self) -> float:
        """Mean of the true positive and true negative rates; a class that the truth lacks is left out."""
        present = [(hit, hit + miss) for hit, miss in ((self.tp, self.fn), (self.tn, self.fp)) if hit + miss]
        return sum(hit / size for hit, size in present) / len(present) if present else 1.0


def ratio(numerator: float, denominator: float, perfect: bool) -> float:
    """Return the quotient; for a denominator of 0, 1.0 where that stands for `perfect` and 0.0 where not."""
    if denominator:
        return float(numerator / denominator)
    return 1.0 if perfect else 0.0


def pixel_counts(table: OverlapTable) -> Counts:
    """Count pixels: nucleus in both images, in one of them, in none."""
    tp = int(table.intersection.sum())
    fp = int(table.prediction_areas.sum()) - tp
    fn = int(table.truth_areas.sum()) - tp
    return Counts(tp, fp, fn, table.pixels - tp - fp - fn)


def matches(table: OverlapTable, percent: int = MATCH_PERCENT) -> NDArray[np.bool_]:
    """Return which pairs of the table overlap with an IoU above `percent` / 100.

    Parameters
    ----------
    table : OverlapTable
        K pairs.
    percent : int
        At least 50, so that no object is in two matches; compared exactly, in integers.

    Returns
    -------
    (K,) bool
        True for matches.

    Raises
    ------
    ValueError
        If `percent` is under 50.
    """
    if percent < 50:
        raise ValueError(f"under an IoU of 0.5 matches are not unique; {percent} % was asked for")
    return 100 * table.intersection > percent * table.union


def object_counts(table: OverlapTable, percent: int = MATCH_PERCENT) -> Counts:
    """Count objects: matched at IoU > `percent` / 100, predicted only, missed."""
    tp = int(matches(table, percent).sum())
    return Counts(tp, len(table.prediction_labels) - tp, len(table.truth_labels) - tp)


def mean_average_precision(table: OverlapTable) -> float:
    """Return TP / (TP + FP + FN) of objects averaged over the IoU thresholds 0.5, 0.55 ... 0.95.

    Equation 2 of Rocha (2018), which is the score of the Data Science Bowl 2018.
    """
    return sum(object_counts(table, percent).jaccard for percent in MAP_PERCENTS) / len(MAP_PERCENTS)


def segmentation_quality(table: OverlapTable) -> float:
    """Return the mean IoU of matched objects; where none matches 0.0, or 1.0 if neither image holds an object."""
    iou = table.iou[matches(table)]
    nothing = not len(table.truth_labels) and not len(table.prediction_labels)
    return ratio(float(iou.sum()), len(iou), nothing)


def optimal_pairs(table: OverlapTable) -> NDArray[np.int64]:
    """Pair truths and predictions one to one so that the sum of the IoUs is largest.

    Objects that overlap, directly or through others, form groups; each group is solved by itself (Hungarian method),
    so that no matrix is larger than a group.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.

    Returns
    -------
    (P,) int64
        Rows of the chosen pairs in the table, ascending.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    truths, predictions = len(table.truth_labels), len(table.prediction_labels)
    nodes = truths + predictions
    edges = (table.truth_index, truths + table.prediction_index)
    _, group = connected_components(coo_array((np.ones(len(table.iou)), edges), shape=(nodes, nodes)), directed=False)
    of_pair = group[table.truth_index]
    order = np.argsort(of_pair, kind="stable")
    bounds = np.flatnonzero(np.diff(of_pair[order], prepend=-1, append=-1))
    chosen = [_best_in_group(table, order[start:stop]) for start, stop in pairwise(bounds)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def _best_in_group(table: OverlapTable, pair: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of a group's pairs make the one-to-one pairing with the largest sum of IoUs."""
    if len(pair) == 1:
        return pair
    truth, row = np.unique(table.truth_index[pair], return_inverse=True)
    prediction, col = np.unique(table.prediction_index[pair], return_inverse=True)
    iou = table.intersection[pair] / table.union[pair]
    if len(truth) == 1 or len(prediction) == 1:
        return pair[[int(np.argmax(iou))]]
    from scipy.optimize import linear_sum_assignment

    weights = np.zeros((len(truth), len(prediction)))
    weights[row, col] = iou
    which = np.full(weights.shape, -1)
    which[row, col] = pair
    found = which[linear_sum_assignment(weights, maximize=True)]
    return found[found >= 0]  # the method pairs what does not overlap where nothing else is left


def aji_plus(table: OverlapTable) -> float:
    """Return AJI+: the Aggregated Jaccard Index of the one-to-one pairing of `optimal_pairs` (Graham et al. 2019)."""
    from nuclix.ext.overlap import aggregated_jaccard

    return aggregated_jaccard(table, optimal_pairs(table))


def average_hausdorff(truth: NDArray[Any], prediction: NDArray[Any], table: OverlapTable) -> float:
    """Return the average Hausdorff distance (AHD) of the attention paper, as its published code computes it.

    The mean over the truths that overlap a prediction of `overlap_distances`; truths that nothing overlaps and false
    predictions do not count (AJI and PQ see those).

    Parameters
    ----------
    truth, prediction : (H, W) array of bool or integer
        Label images.
    table : OverlapTable
        Their overlaps.

    Returns
    -------
    float
        Pixels; 0.0 where neither image holds an object, the image's diagonal where no objects overlap.
    """
    from nuclix.ext.hausdorff import overlap_distances

    distances = overlap_distances(truth, prediction, table)
    distances = distances[distances >= 0]
    if len(distances):
        return float(distances.mean())
    return math.hypot(*truth.shape) if len(table.truth_labels) or len(table.prediction_labels) else 0.0


def score(truth: NDArray[Any], prediction: NDArray[Any]) -> Scores:
    """Score a prediction against the truth.

    Parameters
    ----------
    truth, prediction : (H, W) array of bool or integer
        Label images: 0 is background, every other value one nucleus.

    Returns
    -------
    Scores
        Every score.

    Raises
    ------
    TypeError, ValueError
        As `overlap_table` does.

    Examples
    --------
    >>> import numpy as np
    >>> found = score(np.array([[1, 1, 0, 2]]), np.array([[3, 3, 3, 0]]))
    >>> found.aji, found.pq, found.recall
    (0.5, 0.4444444444444444, 0.6666666666666666)
    """
    from nuclix.ext.overlap import overlap_table

    table = overlap_table(truth, prediction)
    return score_table(table, average_hausdorff(np.asarray(truth), np.asarray(prediction), table))


def score_table(table: OverlapTable, ahd: float) -> Scores:
    """Compute every score that the overlaps suffice for, and add `ahd`, for which they don't.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.
    ahd : float
        What `average_hausdorff` returned.

    Returns
    -------
    Scores
        Every score.
    """
    from nuclix.ext.overlap import aji, aji_disjoint

    pixels, objects, quality = pixel_counts(table), object_counts(table), segmentation_quality(table)
    return Scores(
        aji=aji(table),
        aji_disjoint=aji_disjoint(table),
        aji_plus=aji_plus(table),
        pq=objects.f1 * quality,
        dq=objects.f1,
        sq=quality,
        object_precision=objects.precision,
        object_recall=objects.recall,
        object_f1=objects.f1,
        mean_ap=mean_average_precision(table),
        f1=pixels.f1,
        precision=pixels.precision,
        recall=pixels.recall,
        accuracy=pixels.accuracy,
        jaccard=pixels.jaccard,
        perf=pixels.perf,
        ahd=ahd,
        adc=pixels.f1,
    )


def mean_of(scores: Sequence[T]) -> T:
    """Return the mean of each score.

    Parameters
    ----------
    scores : sequence of dataclasses
        Of one class, all of whose fields are numbers; at least one.

    Returns
    -------
    dataclass
        Of the same class.
    """
    first: Any = scores[0]
    names = [item.name for item in fields(first)]
    return type(scores[0])(*(float(np.mean([getattr(each, name) for each in scores])) for name in names))
