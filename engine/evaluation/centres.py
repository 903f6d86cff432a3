"""Pairs of nuclei by the distance of their centres, as scores of detection and classification take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 12.0  # px at 0.25 um/px, 3 um: HoVer-Net (section 4.3), PanNuke and CoNIC


def centres_of(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centre of mass of each label.

    Parameters
    ----------
    labels : (H, W) integer array
        Label image.
    values : (N,) integer array
        The labels wanted, in rising order; each stands in the image.

    Returns
    -------
    (N, 2) float64
        Row and column, in px.
    """
    rows, cols = np.nonzero(labels)
    place = np.searchsorted(values, labels[rows, cols])
    areas = np.bincount(place, minlength=len(values))
    sums = [np.bincount(place, weights=each, minlength=len(values)) for each in (rows, cols)]
    return np.stack(sums, axis=1) / areas[:, None]


def pair_centres(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], max_distance: float = MAX_DISTANCE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair centres one to one, so that as many as can be are paired, with the least sum of distances.

    Parameters
    ----------
    truth, prediction : (N, 2) and (M, 2) float64
        Centres.
    max_distance : float
        Of a pair.

    Returns
    -------
    (P,) int64, (P,) int64
        Indices into `truth` and `prediction`.

    Notes
    -----
    The programs of the papers minimise the sum over all centres, those beyond the distance included, and drop long
    pairs afterwards, which can lose a pair. Here only centres within reach of each other are assigned, group by group,
    so that a whole slide can be scored.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not len(truth) or not len(prediction):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    near = KDTree(truth).sparse_distance_matrix(KDTree(prediction), max_distance, output_type="ndarray")
    rows, cols, distance = near["i"], near["j"], near["v"]
    count = len(truth) + len(prediction)
    links = coo_array((np.ones(len(rows), bool), (rows, len(truth) + cols)), (count, count))
    group = connected_components(links, directed=False)[1][rows]
    paired: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        own_rows, i = np.unique(rows[part], return_inverse=True)
        own_cols, j = np.unique(cols[part], return_inverse=True)
        far = (len(part) + 1) * (max_distance + 1)  # more than all distances together: no pair is given up for them
        cost = np.full((len(own_rows), len(own_cols)), far)
        cost[i, j] = distance[part]
        a, b = linear_sum_assignment(cost)
        close = cost[a, b] < far
        paired.append((own_rows[a[close]], own_cols[b[close]]))
    first, second = (np.concatenate(each).astype(np.int64) for each in zip(*paired, strict=True))
    return first, second
