"""Scores of classified nuclei: panoptic quality and F1 by class, and the confusion matrix.

One table of counts an image, classes by classes, holds all that the scores need. Nuclei match if their IoU exceeds
one half, whatever their classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.evaluation.scores import matches

if TYPE_CHECKING:
    from nuclix.ext.overlap import OverlapTable


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """What one image counts.

    Attributes
    ----------
    confusion : (K + 1, K + 1) int64
        Nuclei by class in the truth (rows) and in the prediction (columns); the last row and column are those that
        nothing matches.
    iou : (K,) float64
        Sum of the IoUs of matches of one class.
    by_centre : (K + 1, K + 1) int64
        As `confusion`, of nuclei that are paired by their centres.
    """

    confusion: NDArray[np.int64]
    iou: NDArray[np.float64]
    by_centre: NDArray[np.int64]

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.confusion + other.confusion, self.iou + other.iou, self.by_centre + other.by_centre)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores by class, over several images.

    Attributes
    ----------
    names : tuple of str
        K classes: those of the truth, then those of the prediction only.
    nuclei : (K,) int64
        In the truth.
    pq : (K,) float64
        Mean over the images whose truth holds the class of its panoptic quality there (PanNuke); NaN for a class that
        the truth lacks.
    pq_plus : (K,) float64
        Panoptic quality from the counts of all images together (CoNIC).
    f1 : (K,) float64
        2 TP / (2 TP + FP + FN) of the nuclei of the class, over all images.
    f1_classified : (K,) float64
        HoVer-Net's F_c (eq. 11) of nuclei paired by their centres, over all images, as the authors' program computes
        it: true negatives do not count.
    image_pq : (I,) float64
        Mean over the classes that an image's truth holds of their panoptic quality there; NaN where it holds none.
    mpq : float
        Mean of `image_pq`, as PanNuke's program averages (there within each tissue).
    mpq_plus, mean_f1 : float
        Means over the classes of the truth.
    f1_detected : float
        2 TP / (2 TP + FP + FN) of pairs by centre, whatever their classes (HoVer-Net's F_d).
    accuracy : float
        Share of the matched nuclei whose class is right.
    confusion : (K + 1, K + 1) int64
        As in `ClassCounts`, summed.
    """

    names: tuple[str, ...]
    nuclei: NDArray[np.int64]
    pq: NDArray[np.float64]
    pq_plus: NDArray[np.float64]
    f1: NDArray[np.float64]
    f1_classified: NDArray[np.float64]
    image_pq: NDArray[np.float64]
    mpq: float
    mpq_plus: float
    mean_f1: float
    f1_detected: float
    accuracy: float
    confusion: NDArray[np.int64]


def count_classes(
    table: OverlapTable,
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    count: int,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> ClassCounts:
    """Count an image's nuclei by their classes.

    Parameters
    ----------
    table : OverlapTable
        N truths, M predictions.
    truth, prediction : (N,) and (M,) int64
        Index of each one's class, in the order of the table.
    count : int
        K, the number of classes.
    pairs : (P,) int64, (P,) int64
        Indices of truths and predictions that are paired by their centres.

    Returns
    -------
    ClassCounts
    """
    found = matches(table)
    rows, cols = table.truth_index[found], table.prediction_index[found]
    same = truth[rows] == prediction[cols]
    iou = np.bincount(truth[rows][same], weights=table.iou[found][same], minlength=count).astype(np.float64)
    by_overlap, by_centre = (_confusion(truth, prediction, count, *each) for each in ((rows, cols), pairs))
    return ClassCounts(by_overlap, iou, by_centre)


def _confusion(
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    count: int,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Count pairs by the classes of both, and in the last column and row those without a partner."""
    out = np.zeros((count + 1, count + 1), np.int64)
    np.add.at(out, (truth[rows], prediction[cols]), 1)
    missed, extra = np.ones(len(truth), bool), np.ones(len(prediction), bool)
    missed[rows] = False
    extra[cols] = False
    out[:-1, -1] = np.bincount(truth[missed], minlength=count)
    out[-1, :-1] = np.bincount(prediction[extra], minlength=count)
    return out


def score_classes(images: Sequence[ClassCounts], names: Sequence[str]) -> ClassScores:
    """Compute the scores of counted images.

    Parameters
    ----------
    images : sequence of ClassCounts
        At least one.
    names : sequence of str
        The K classes.

    Returns
    -------
    ClassScores
    """
    total = images[0]
    for image in images[1:]:
        total = total + image
    nuclei = total.confusion[:-1].sum(axis=1)
    present = nuclei > 0
    by_image = np.stack([_panoptic_quality(image) for image in images])
    holds = np.stack([image.confusion[:-1].sum(axis=1) > 0 for image in images])
    held = np.where(holds, by_image, 0)
    image_pq = _ratio(held.sum(axis=1), holds.sum(axis=1))
    pq_plus, f1 = _panoptic_quality(total), _f1(total)
    pairs = total.by_centre[:-1, :-1].sum()
    matched = total.confusion[:-1, :-1]
    return ClassScores(
        names=tuple(names),
        nuclei=nuclei,
        pq=_ratio(held.sum(axis=0), holds.sum(axis=0)),
        pq_plus=pq_plus,
        f1=f1,
        f1_classified=_f1_classified(total),
        image_pq=image_pq,
        mpq=_mean(image_pq[holds.any(axis=1)]),
        mpq_plus=_mean(pq_plus[present]),
        mean_f1=_mean(f1[present]),
        f1_detected=float(2 * pairs / (pairs + total.by_centre.sum())) if total.by_centre.any() else 0.0,
        accuracy=float(np.trace(matched) / matched.sum()) if matched.sum() else 0.0,
        confusion=total.confusion,
    )


def mean_class_quality(scores: ClassScores, images: Sequence[str], groups: Mapping[str, str]) -> dict[str, float]:
    """Return the mPQ of each group of images (PanNuke's tissues), in order of name.

    Parameters
    ----------
    scores : ClassScores
        Of the images.
    images : sequence of str
        Their names, in the order in which they were counted.
    groups : mapping of str to str
        Every image's group, or nothing.

    Returns
    -------
    dict of str to float
        Means over a group's images that hold nuclei; groups without such an image are left out.
    """
    members: dict[str, list[float]] = {}
    for image, quality in zip(images, scores.image_pq.tolist(), strict=True):
        if groups and not math.isnan(quality):
            members.setdefault(groups[image], []).append(quality)
    return {name: sum(members[name]) / len(members[name]) for name in sorted(members)}


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotients; NaN for 0 / 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _halves(counts: ClassCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return TP and TP + FP / 2 + FN / 2 of each class."""
    hits = np.diag(counts.confusion)[:-1].astype(np.float64)
    return hits, (counts.confusion[:-1].sum(axis=1) + counts.confusion[:, :-1].sum(axis=0)) / 2


def _panoptic_quality(counts: ClassCounts) -> NDArray[np.float64]:
    """Return the sum of IoUs over TP + FP / 2 + FN / 2 (Kirillov et al. 2019)."""
    return _ratio(counts.iou, _halves(counts)[1])


def _f1(counts: ClassCounts) -> NDArray[np.float64]:
    return _ratio(*_halves(counts))


def _f1_classified(counts: ClassCounts) -> NDArray[np.float64]:
    """Return 2 TP / (2 TP + 2 FP + 2 FN + FP_d + FN_d): of pairs by centre, then of the class' nuclei without one."""
    pairs = counts.by_centre[:-1, :-1]
    right = np.diag(pairs).astype(np.float64)
    wrong = pairs.sum(axis=0) + pairs.sum(axis=1) - 2 * right
    alone = counts.by_centre[-1, :-1] + counts.by_centre[:-1, -1]
    return _ratio(2 * right, 2 * right + 2 * wrong + alone)
