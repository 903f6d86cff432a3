"""The Numba side of `nuclix.ext.hausdorff`."""

from __future__ import annotations

import numpy as np

from nuclix.ext._jit import kernel


@kernel
def _position(values, low, high, wanted):  # type: ignore[no-untyped-def]
    """Return where `wanted`, which is there, lies in values[low:high] (ascending)."""
    while low < high:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def collect_edges(truth, prediction, width, rows, labels):  # type: ignore[no-untyped-def]
    """List the edge pixels of every truth and of every overlap; return the lists and where they end.

    `rows` holds where each truth's area (in `truth_start`) and pairs (in `pair_of`) begin; `labels` the truths' labels
    and the pairs' prediction labels. An edge pixel has a 4-neighbour outside its set, or lies at the image's edge.
    """
    truth_start, pair_of, pair_start = rows
    truth_labels, pair_labels = labels
    truth_end = truth_start[:-1].copy()
    pair_end = pair_start[:-1].copy()
    truth_edge = np.empty(truth_start[-1], np.int64)
    pair_edge = np.empty(pair_start[-1], np.int64)
    index = 0
    pair = 0
    for pixel in range(truth.shape[0]):
        a = truth[pixel]
        if a == 0:
            continue
        b = prediction[pixel]
        if truth_labels[index] != a:
            index = _position(truth_labels, 0, truth_labels.shape[0], a)
        same_truth = 0
        same_pair = 0
        column = pixel % width
        for step, inside in (
            (-1, column > 0),
            (1, column + 1 < width),
            (-width, pixel >= width),
            (width, pixel + width < truth.shape[0]),
        ):
            if inside and truth[pixel + step] == a:
                same_truth += 1
                same_pair += np.int64(prediction[pixel + step] == b)
        if same_truth < 4:
            truth_edge[truth_end[index]] = pixel
            truth_end[index] += 1
        if b != 0 and same_pair < 4:
            if not (pair_of[index] <= pair < pair_of[index + 1] and pair_labels[pair] == b):
                pair = _position(pair_labels, pair_of[index], pair_of[index + 1], b)
            pair_edge[pair_end[pair]] = pixel
            pair_end[pair] += 1
    return truth_edge, truth_end, pair_edge, pair_end


@kernel
def _farther(row, col, targets, width, last, worst):  # type: ignore[no-untyped-def]
    """Return the squared distance to the nearest target and that target; the search stops at or under `worst`."""
    nearest = np.int64(9223372036854775807)
    found = last
    count = targets.shape[0]
    for step in range(count):
        at = last + step
        if at >= count:
            at -= count
        down = targets[at] // width - row
        right = targets[at] % width - col
        distance = down * down + right * right
        if distance < nearest:
            nearest = distance
            found = at
            if nearest <= worst:
                break
    return nearest, found


@kernel
def _overlap_distance(truth, prediction, width, edge, targets):  # type: ignore[no-untyped-def]
    """Return the squared Hausdorff distance between a truth and the part of it that a prediction covers.

    The farthest pixel of the truth is one of its edge pixels or lies in the targets' bounding box: from anywhere else
    a step away from the box stays in the truth and comes nearer to no target.
    """
    a = truth[targets[0]]
    b = prediction[targets[0]]
    worst = np.int64(0)
    last = 0
    top = targets[0] // width
    bottom = top
    left = targets[0] % width
    right = left
    for target in targets:
        top = min(top, target // width)
        bottom = max(bottom, target // width)
        left = min(left, target % width)
        right = max(right, target % width)
    for pixel in edge:
        if prediction[pixel] != b:
            distance, last = _farther(pixel // width, pixel % width, targets, width, last, worst)
            worst = max(worst, distance)
    for row in range(top, bottom + 1):
        for col in range(left, right + 1):
            pixel = row * width + col
            if truth[pixel] == a and prediction[pixel] != b:
                distance, last = _farther(row, col, targets, width, last, worst)
                worst = max(worst, distance)
    return worst


@kernel
def overlap_distances(truth, prediction, width, rows, edges):  # type: ignore[no-untyped-def]
    """Return for every truth the largest squared distance over its pairs, -1 where it has none."""
    truth_start, pair_of, pair_start = rows
    truth_edge, truth_end, pair_edge, pair_end = edges
    worst = np.full(truth_start.shape[0] - 1, -1, np.int64)
    for index in range(worst.shape[0]):
        edge = truth_edge[truth_start[index] : truth_end[index]]
        for pair in range(pair_of[index], pair_of[index + 1]):
            targets = pair_edge[pair_start[pair] : pair_end[pair]]
            worst[index] = max(worst[index], _overlap_distance(truth, prediction, width, edge, targets))
    return worst
