"""Hausdorff distances between truths and the parts of them that predictions cover."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext._check import as_labels
from nuclix.ext.overlap import OverlapTable, flat_unsigned
from nuclix.ext.ragged import offsets_of


def overlap_distances(truth: NDArray[Any], prediction: NDArray[Any], table: OverlapTable) -> NDArray[np.float64]:
    """Return for every truth the farthest that a pixel of it lies from its overlap with a prediction.

    For truth G and each prediction S that overlaps it: the Hausdorff distance between G and the part of G that S
    covers, which is the largest distance of a pixel of G from the nearest pixel of that part. Of several predictions
    the largest distance counts.

    Parameters
    ----------
    truth, prediction : (H, W) array of bool or integer
        Label images.
    table : OverlapTable
        Their overlaps, as `overlap_table` returns them.

    Returns
    -------
    (N,) float64
        In the order of `table.truth_labels`, pixels, Euclidean; -1 where no prediction overlaps the truth.

    Raises
    ------
    ValueError
        If the table is not of these images.

    Examples
    --------
    >>> import numpy as np
    >>> from nuclix.ext.overlap import overlap_table
    >>> truth, prediction = np.array([[1, 1, 1, 1, 0, 2]]), np.array([[5, 5, 0, 0, 5, 0]])
    >>> overlap_distances(truth, prediction, overlap_table(truth, prediction)).tolist()
    [2.0, -1.0]
    """
    truth, prediction = as_labels(truth, "truth"), as_labels(prediction, "prediction")
    covered = int(table.truth_areas.sum())
    if truth.shape != prediction.shape or truth.size != table.pixels or np.count_nonzero(truth) != covered:
        raise ValueError("`table` must be the overlap table of `truth` and `prediction`")
    if not len(table.truth_labels):
        return np.zeros(0)

    from nuclix.ext import _hausdorff_kernels as kernels

    first, second = flat_unsigned(truth, prediction)
    rows = (
        offsets_of(table.truth_areas),
        np.searchsorted(table.truth_index, np.arange(len(table.truth_labels) + 1)),
        offsets_of(table.intersection),
    )
    labels = (
        table.truth_labels.astype(first.dtype),
        table.prediction_labels[table.prediction_index].astype(first.dtype),
    )
    edges = kernels.collect_edges(first, second, truth.shape[1], rows, labels)
    squared = kernels.overlap_distances(first, second, truth.shape[1], rows, edges)
    return np.where(squared < 0, -1.0, np.sqrt(np.maximum(squared, 0)))
