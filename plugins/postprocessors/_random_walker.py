"""Random walks from marked pixels over the others of a piece of a mask (Grady, IEEE TPAMI 28, 2006)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components

if TYPE_CHECKING:
    from scipy.sparse import csc_array

MIN_WEIGHT = 1e-6  # keeps the equations solvable across cliffs


def random_walker(
    image: NDArray[np.float32], markers: NDArray[np.int32], mask: NDArray[np.bool_], beta: float
) -> NDArray[np.int32]:
    """Give every pixel the marker that a random walker from there reaches first with the largest probability.

    Walkers step to the four neighbours in the mask with weights exp(-beta (g_i - g_j)^2) (eq. 1). scikit-image's
    function of the same name divides beta by the standard deviation of the array that it is given, so its answer
    changes with the crop; here it is a function of the piece alone.

    Parameters
    ----------
    image : (H, W) float32
        g; finite inside the mask.
    markers : (H, W) int32
        Numbers from 1 at marked pixels, 0 elsewhere.
    mask : (H, W) bool
        One 4-connected piece that holds all markers.
    beta : float
        How much a walker shuns a step in the image.

    Returns
    -------
    (H, W) int32
        0 outside the mask; of equal probabilities the smaller number. 0 too where a marker's region would be in several
        parts (as may be with three markers or more, and where probabilities are equal) and a part holds no marker.
    """
    from scipy.sparse.linalg import splu

    numbers = markers[mask]
    known = numbers > 0
    names = np.unique(numbers[known])
    out = np.zeros(mask.shape, np.int32)
    if len(names) < 2:
        out[mask] = names[0] if len(names) else 0
        return out
    laplacian = _laplacian(image, mask, beta)
    rows = laplacian[~known]
    # Symmetric and positive definite: no pivoting, an ordering for symmetric matrices.
    solver = splu(
        rows[:, ~known].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    coupling = rows[:, known]
    best = np.full(int((~known).sum()), -np.inf)
    label = np.zeros(best.shape, np.int32)
    for number in names:  # one at a time: memory does not grow with the number of markers
        reached = solver.solve(-(coupling @ (numbers[known] == number).astype(np.float64)))
        better = reached > best
        best[better], label[better] = reached[better], number
    numbers[~known] = label
    out[mask] = numbers
    return _joined_to_markers(out, markers, names)


def _joined_to_markers(
    labels: NDArray[np.int32], markers: NDArray[np.int32], names: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the labels without the parts that no 4-connected path within the label joins to its marker."""
    joined = np.zeros_like(labels)
    for name in names:
        parts, _ = connected_components(labels == name, 4)
        holds = np.isin(parts, parts[markers == name])
        joined[holds & (labels == name)] = name
    return joined


def _laplacian(image: NDArray[np.float32], mask: NDArray[np.bool_], beta: float) -> csc_array:
    """Return the graph Laplacian (eq. 3) of a mask's pixels, in raster order."""
    from scipy.sparse import coo_array

    count = int(mask.sum())
    index = np.full(mask.shape, -1, np.int64)
    index[mask] = np.arange(count)
    heights = image.astype(np.float64)
    starts, ends, weights = [], [], []
    for one, other in (((..., slice(None, -1)), (..., slice(1, None))), ((slice(None, -1),), (slice(1, None),))):
        joined = mask[one] & mask[other]
        steps = heights[one][joined] - heights[other][joined]
        starts.append(index[one][joined])
        ends.append(index[other][joined])
        weights.append(np.exp(-beta * steps**2) + MIN_WEIGHT)
    start, end, weight = np.concatenate(starts), np.concatenate(ends), np.concatenate(weights)
    row, col = np.concatenate([start, end]), np.concatenate([end, start])
    off = coo_array((np.concatenate([-weight, -weight]), (row, col)), shape=(count, count))
    degree = np.bincount(row, np.concatenate([weight, weight]), count)
    diagonal = coo_array((degree, (np.arange(count), np.arange(count))), shape=(count, count))
    return (off + diagonal).tocsr()
