"""Overlaps of two label images as a sparse table, and the Aggregated Jaccard Index from it.

One pass over the pixels; memory grows with the number of overlapping pairs, never with objects times objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext._check import as_labels, check_shape


@dataclass(frozen=True, slots=True)
class OverlapTable:
    """Which objects of two label images overlap, and by how many pixels.

    N truths and M predictions, each in ascending order of label; K overlapping pairs in ascending order of
    (truth, prediction). Label 0 is background and no object.

    Attributes
    ----------
    truth_labels, prediction_labels : (N,) and (M,) array
        The label values as they stand in the images, in the images' dtypes (uint8 for bool).
    truth_areas, prediction_areas : (N,) and (M,) int64
        Areas in pixels.
    truth_index, prediction_index : (K,) int64
        Each pair's rows in the arrays above.
    intersection : (K,) int64
        Each pair's common pixels, at least 1.
    pixels : int
        Number of pixels of an image.
    """

    truth_labels: NDArray[Any]
    prediction_labels: NDArray[Any]
    truth_areas: NDArray[np.int64]
    prediction_areas: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    prediction_index: NDArray[np.int64]
    intersection: NDArray[np.int64]
    pixels: int

    @property
    def union(self) -> NDArray[np.int64]:
        """(K,) int64, each pair's union in pixels."""
        areas = self.truth_areas[self.truth_index] + self.prediction_areas[self.prediction_index]
        return areas - self.intersection

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) float64, each pair's intersection over union, in (0, 1]."""
        return self.intersection / self.union

    def swapped(self) -> OverlapTable:
        """Return the table with truth and prediction in each other's place."""
        order = np.lexsort((self.truth_index, self.prediction_index))
        return OverlapTable(
            self.prediction_labels,
            self.truth_labels,
            self.prediction_areas,
            self.truth_areas,
            self.prediction_index[order],
            self.truth_index[order],
            self.intersection[order],
            self.pixels,
        )


def overlap_table(truth: NDArray[Any], prediction: NDArray[Any]) -> OverlapTable:
    """Count the pixels that each object of `truth` shares with each object of `prediction`.

    Parameters
    ----------
    truth, prediction : (H, W) array of bool or integer
        Label images of one shape: 0 is background, every other value one object. Labels need not be contiguous;
        any memory order; neither is written to. A bool image holds one object.

    Returns
    -------
    OverlapTable
        The overlapping pairs and every object's area.

    Raises
    ------
    TypeError
        If an image is not of bool or integer dtype.
    ValueError
        If an image is not two-dimensional, the shapes differ or a label is negative.

    Examples
    --------
    >>> import numpy as np
    >>> table = overlap_table(np.array([[7, 7, 0, 9]]), np.array([[0, 4, 4, 0]]))
    >>> table.truth_labels.tolist(), table.truth_areas.tolist()
    ([7, 9], [2, 1])
    >>> table.intersection.tolist(), table.union.tolist()
    ([1], [3])
    """
    truth, prediction = as_labels(truth, "truth"), as_labels(prediction, "prediction")
    check_shape(prediction, truth.shape, "prediction")

    from nuclix.ext._overlap_kernels import count_pairs

    first, second = flat_unsigned(truth, prediction)
    truth_keys, prediction_keys, counts = count_pairs(first, second)
    return _table(
        _signed(truth_keys, truth, "truth"), _signed(prediction_keys, prediction, "prediction"), counts, truth.size
    )


def flat_unsigned(truth: NDArray[Any], prediction: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bring two label images into the one form that the kernels are compiled for.

    Parameters
    ----------
    truth, prediction : (H, W) array of integer
        Label images, C-contiguous.

    Returns
    -------
    truth, prediction : (H * W,) uint32 or uint64
        The pixels, read-only; a copy only where the width differs. 64 bits where either image has them. Negative
        labels wrap around.
    """
    word: type[np.unsignedinteger[Any]] = np.uint64 if max(truth.itemsize, prediction.itemsize) > 4 else np.uint32
    flat = []
    for image in (truth, prediction):
        same = image.itemsize == np.dtype(word).itemsize
        line = (image.view(word) if same else image.astype(word)).reshape(-1)
        line.flags.writeable = False  # one type for every caller, so that the kernel is compiled once a width
        flat.append(line)
    return flat[0], flat[1]


def _signed(keys: NDArray[Any], image: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the keys in the image's dtype; negative labels are refused."""
    if image.dtype.kind == "i":
        keys = keys.view(np.dtype(f"i{keys.itemsize}"))
        if keys.size and keys.min() < 0:
            raise ValueError(f"`{name}` has the negative label {keys.min()}")
    return keys.astype(image.dtype, copy=False)


def _table(truth: NDArray[Any], prediction: NDArray[Any], counts: NDArray[np.int64], pixels: int) -> OverlapTable:
    """Sort the counted pairs, those with background among them, into a table."""
    truth_labels, truth_rows = np.unique(truth, return_inverse=True)
    prediction_labels, prediction_rows = np.unique(prediction, return_inverse=True)
    truth_areas = _sums(truth_rows, counts, len(truth_labels))
    prediction_areas = _sums(prediction_rows, counts, len(prediction_labels))
    truth_skip = int(not truth_labels[:1].all())  # background, where it is there, is the first row
    prediction_skip = int(not prediction_labels[:1].all())
    pair = np.flatnonzero((truth != 0) & (prediction != 0))
    pair = pair[np.lexsort((prediction_rows[pair], truth_rows[pair]))]
    return OverlapTable(
        truth_labels[truth_skip:],
        prediction_labels[prediction_skip:],
        truth_areas[truth_skip:],
        prediction_areas[prediction_skip:],
        truth_rows[pair] - truth_skip,
        prediction_rows[pair] - prediction_skip,
        counts[pair],
        pixels,
    )


def _sums(rows: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the sum of counts for each row."""
    sums = np.zeros(size, np.int64)
    np.add.at(sums, rows, counts)
    return sums


def best_predictions(table: OverlapTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find for every truth the overlapping prediction with the largest Jaccard index.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.

    Returns
    -------
    truth : (P,) int64
        The truths that overlap any prediction, ascending.
    pair : (P,) int64
        For each of them its best pair's row in the table; of equals, the one with the smallest prediction label.
    """
    order = np.lexsort((table.prediction_index, -table.iou, table.truth_index))
    truth, first = np.unique(table.truth_index[order], return_index=True)
    return truth, order[first]


def disjoint_pairs(table: OverlapTable) -> NDArray[np.int64]:
    """Pair truths and predictions one to one, the largest Jaccard index first.

    The pairing is stable: no truth and prediction that overlap both lie nearer to each other than to their partners.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.

    Returns
    -------
    (P,) int64
        Rows of the chosen pairs in the table, ascending. Equal indices are taken in ascending order of
        (truth, prediction).
    """
    from nuclix.ext._overlap_kernels import take_free

    order = np.argsort(-table.iou, kind="stable")
    chosen = take_free(
        table.truth_index[order],
        table.prediction_index[order],
        len(table.truth_labels),
        len(table.prediction_labels),
    )
    return np.sort(order[chosen])


def aggregated_jaccard(table: OverlapTable, pair: NDArray[np.int64]) -> float:
    """Return the Aggregated Jaccard Index of a given assignment of predictions to truths.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.
    pair : (P,) int64
        Rows of the table, each truth at most once; a prediction may serve several truths.

    Returns
    -------
    float
        The sum of the pairs' intersections over the sum of their unions, of the areas of truths without a pair and
        of the areas of predictions in no pair; 1.0 where neither image holds an object.
    """
    lonely_truth = np.ones(len(table.truth_labels), bool)
    lonely_truth[table.truth_index[pair]] = False
    lonely_prediction = np.ones(len(table.prediction_labels), bool)
    lonely_prediction[table.prediction_index[pair]] = False
    lonely = table.truth_areas[lonely_truth].sum() + table.prediction_areas[lonely_prediction].sum()
    denominator = int(table.union[pair].sum() + lonely)
    return int(table.intersection[pair].sum()) / denominator if denominator else 1.0


def aji(table: OverlapTable) -> float:
    """Return the Aggregated Jaccard Index as it is commonly computed: a prediction may serve several truths.

    Equation 6 of Naylor et al. (TMI 2018), in which S*(i) is the prediction with the largest Jaccard index for truth
    i and U the predictions that are S*(i) of no truth. A truth that overlaps nothing adds its area to the denominator.
    The clause that the S*(i) be disjoint is not enforced, as in the code that published figures come from;
    `aji_disjoint` enforces it. Ties go to the smallest prediction label.

    Parameters
    ----------
    table : OverlapTable
        The overlaps.

    Returns
    -------
    float
        Between 0 and 1; 1.0 where neither image holds an object, 0.0 where only one does.

    Examples
    --------
    >>> import numpy as np
    >>> aji(overlap_table(np.array([[1, 1, 2, 2, 0]]), np.array([[1, 1, 1, 1, 2]])))  # (2 + 2) / (4 + 4 + 1)
    0.4444444444444444
    """
    return aggregated_jaccard(table, best_predictions(table)[1])


def aji_disjoint(table: OverlapTable) -> float:
    """Return the Aggregated Jaccard Index with equation 6's clause: S*(i) and S*(j) are disjoint for i != j.

    Where several truths want one prediction, the one with the largest Jaccard index gets it and the others take the
    best of what is left (`disjoint_pairs`).

    Parameters
    ----------
    table : OverlapTable
        The overlaps.

    Returns
    -------
    float
        Between 0 and 1; 1.0 where neither image holds an object, 0.0 where only one does.

    Examples
    --------
    >>> import numpy as np
    >>> aji_disjoint(overlap_table(np.array([[1, 1, 2, 2, 0]]), np.array([[1, 1, 1, 1, 2]])))  # 2 / (4 + 2 + 1)
    0.2857142857142857
    """
    return aggregated_jaccard(table, disjoint_pairs(table))
