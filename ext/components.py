"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _components
from nuclix.ext._check import as_image, as_mask, check_connectivity


def connected_components(mask: ArrayLike, connectivity: int = 8, min_area: int = 0) -> tuple[NDArray[np.int32], int]:
    """Label the connected components of a mask.

    Parameters
    ----------
    mask : (H, W) bool or uint8 array_like
        Everything but 0 is foreground.
    connectivity : int
        8: pixels that share an edge or a corner are connected; 4: those that share an edge.
    min_area : int
        Components of fewer pixels are left out.

    Returns
    -------
    labels : (H, W) int32 array
        0 on background; components count from 1 in the order of their first pixels (row, then column).
    count : int
        Number of components labelled.

    Raises
    ------
    TypeError, ValueError
        If `mask` is not a two-dimensional array of bool or uint8, or `connectivity` is neither 4 nor 8.

    Examples
    --------
    >>> import numpy as np
    >>> connected_components(np.array([[1, 0], [0, 1]], np.uint8), connectivity=4)
    (array([[1, 0],
           [0, 2]], dtype=int32), 2)
    """
    array = as_mask(mask)
    corners = check_connectivity(connectivity) == 8
    out = np.zeros(array.shape, np.int32)
    return out, _components.connected_components(array, out, corners, min_area) if out.size else 0


def without_small(labels: NDArray[np.int32], min_area: int) -> NDArray[np.int32]:
    """Drop labels of fewer than `min_area` pixels and close the gaps in the numbers, keeping their order.

    Parameters
    ----------
    labels : (H, W) int32
        0 on background, no negative numbers.
    min_area : int
        Pixels; numbers that stand nowhere go in any case.

    Returns
    -------
    (H, W) int32 array
        A new array.

    Examples
    --------
    >>> import numpy as np
    >>> without_small(np.array([[1, 0, 3], [3, 0, 3]], np.int32), 2)
    array([[0, 0, 1],
           [1, 0, 1]], dtype=int32)
    """
    image = as_image(labels, "labels", (np.int32,))
    areas = np.zeros(int(image.max(initial=0)) + 1, np.int64)
    _components.label_areas(image, areas)
    kept = areas >= max(min_area, 1)
    kept[0] = False
    return renamed(image, np.where(kept, np.cumsum(kept), 0))


def renamed(labels: NDArray[np.int32], names: ArrayLike) -> NDArray[np.int32]:
    """Return `names[label]` for every pixel.

    Parameters
    ----------
    labels : (H, W) int32
        From 0 to the number of names less one.
    names : (N,) integer array_like
        New labels, in int32.

    Returns
    -------
    (H, W) int32 array
        A new array.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> renamed(np.array([[0, 1, 2]], np.int32), [0, 7, 0])
    array([[0, 7, 0]], dtype=int32)
    """
    image = as_image(labels, "labels", (np.int32,))
    table = np.ascontiguousarray(names, np.int32)
    if image.size and not 0 <= int(image.min()) <= int(image.max()) < len(table):
        raise ValueError(f"`labels` are {image.min()} to {image.max()}; there are {len(table)} names")
    out = np.empty(image.shape, np.int32)
    _components.rename_labels(image, table, out)
    return out
