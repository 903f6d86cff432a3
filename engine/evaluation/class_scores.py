"""Scores of classified nuclei: panoptic quality and F1 by class, and the confusion matrix.

One table of counts an image, classes by classes, holds all that the scores need. Nuclei match if their IoU exceeds
one half, whatever their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    confusion: NDArray[np.int64]
    iou: NDArray[np.float64]

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.confusion + other.confusion, self.iou + other.iou)


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
        HoVer-Net's F_c (eq. 11), which weighs errors of class and of detection, over all images.
    mpq, mpq_plus, mean_f1 : float
        Means over the classes of the truth.
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
    mpq: float
    mpq_plus: float
    mean_f1: float
    accuracy: float
    confusion: NDArray[np.int64]


def count_classes(
    table: OverlapTable, truth: NDArray[np.int64], prediction: NDArray[np.int64], count: int
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

    Returns
    -------
    ClassCounts
    """
    found = matches(table)
    rows, cols = table.truth_index[found], table.prediction_index[found]
    confusion = np.zeros((count + 1, count + 1), np.int64)
    np.add.at(confusion, (truth[rows], prediction[cols]), 1)
    missed, extra = np.ones(len(truth), bool), np.ones(len(prediction), bool)
    missed[rows] = False
    extra[cols] = False
    confusion[:-1, -1] = np.bincount(truth[missed], minlength=count)
    confusion[-1, :-1] = np.bincount(prediction[extra], minlength=count)
    same = truth[rows] == prediction[cols]
    iou = np.bincount(truth[rows][same], weights=table.iou[found][same], minlength=count).astype(np.float64)
    return ClassCounts(confusion, iou)


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
    pq = _ratio(np.where(holds, by_image, 0).sum(axis=0), holds.sum(axis=0))
    pq_plus, f1, classified = _panoptic_quality(total), _f1(total), _f1_classified(total)
    matched = total.confusion[:-1, :-1]
    return ClassScores(
        names=tuple(names),
        nuclei=nuclei,
        pq=pq,
        pq_plus=pq_plus,
        f1=f1,
        f1_classified=classified,
        mpq=_mean(pq[present]),
        mpq_plus=_mean(pq_plus[present]),
        mean_f1=_mean(f1[present]),
        accuracy=float(np.trace(matched) / matched.sum()) if matched.sum() else 0.0,
        confusion=total.confusion,
    )


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
    """Return 2 (TP + TN) / (2 (TP + TN) + 2 FP + 2 FN + FP_d + FN_d): of matched nuclei, then of those unmatched."""
    matched = counts.confusion[:-1, :-1]
    hits = np.diag(matched).astype(np.float64)
    wrong = matched.sum(axis=0) + matched.sum(axis=1) - 2 * hits
    right = hits + matched.sum() - hits - wrong
    unmatched = counts.confusion[-1, :-1] + counts.confusion[:-1, -1]
    return _ratio(2 * right, 2 * right + 2 * wrong + unmatched)
