"""Chessboard distance of masks and inside instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _distance
from nuclix.ext._check import as_labels, as_mask

MOST = 65_535  # the kernel counts in 16 bits at most


def chessboard_distance(mask: ArrayLike) -> NDArray[np.uint16]:
    """Return every foreground pixel's chessboard distance to the nearest background pixel.

    The chessboard (Chebyshev, L-infinity) distance counts king's moves. The image's edge is not background.

    Parameters
    ----------
    mask : (H, W) bool or uint8 array_like
        Everything but 0 is foreground.

    Returns
    -------
    (H, W) uint16 array
        0 on background. Distances saturate at 65,535, which is also what every pixel of a mask without any
        background gets (`scipy.ndimage.distance_transform_cdt` says -1 there and equals this elsewhere).

    Raises
    ------
    TypeError, ValueError
        If `mask` is not a two-dimensional array of bool or uint8.

    Examples
    --------
    >>> import numpy as np
    >>> chessboard_distance(np.array([[0, 1, 1, 1, 0]], np.uint8))
    array([[0, 1, 2, 1, 0]], dtype=uint16)
    """
    return _distances(as_mask(mask), np.dtype(np.uint16), instances=False)


def instance_distance(labels: ArrayLike) -> NDArray[Any]:
    """Return every pixel's chessboard distance to the nearest pixel of another label, 0 on background.

    This is the regression target of DIST (Naylor et al., IEEE TMI 2018, eq. 3): `chessboard_distance` inside each
    instance with all other instances counting as background. The image's edge is not background.

    Parameters
    ----------
    labels : (H, W) integer array_like
        0 is background; every other value is an instance, connected or not.

    Returns
    -------
    (H, W) array
        Of the dtype of `labels`; distances saturate at that dtype's maximum, which is also what every pixel gets
        where the image holds one instance and nothing else.

    Raises
    ------
    TypeError, ValueError
        If `labels` is not a two-dimensional array of integers.

    Examples
    --------
    >>> import numpy as np
    >>> instance_distance(np.array([[1, 1, 1, 2, 2, 2, 0]]))
    array([[3, 2, 1, 1, 2, 1, 0]])
    """
    array = as_labels(labels)
    return _distances(array, array.dtype, instances=True)


def _distances(labels: NDArray[Any], dtype: np.dtype[Any], instances: bool) -> NDArray[Any]:
    out = np.empty(labels.shape, dtype)
    if out.size:
        most = min(int(np.iinfo(dtype).max), MOST)
        _distance.distance(labels.view(np.uint8), out.view(np.uint8), labels.itemsize, instances, most)
    return out
