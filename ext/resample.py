"""Down- and up-sampling of RGB images with exact integer arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext._resample import box_mean as _box_mean
from nuclix.ext._resample import separable as _separable

WEIGHT_BITS = 11  # 8-bit values times two weights of 11 bits fit a 32-bit integer, so nothing is rounded in between
MAX_FACTOR = 4096  # 255 * 4096 ** 2 fits an unsigned 32-bit sum


def _as_rgb(image: ArrayLike) -> NDArray[np.uint8]:
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise TypeError(f"`image` is {array.dtype}; it must be uint8")
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"`image` has shape {array.shape}; it must be (height, width, 3)")
    return np.ascontiguousarray(array)


def box_mean(image: ArrayLike, factor: int) -> NDArray[np.uint8]:
    """Return the mean of every `factor` x `factor` pixels, rounded half up.

    Parameters
    ----------
    image : (H, W, 3) uint8 array_like
        H and W are multiples of `factor`.
    factor : int
        1 to `MAX_FACTOR`.

    Returns
    -------
    (H / factor, W / factor, 3) uint8 array

    Raises
    ------
    TypeError, ValueError
        If `image` is not an RGB image of uint8, or `factor` does not divide it.

    Examples
    --------
    >>> import numpy as np
    >>> box_mean(np.array([[[0] * 3, [1] * 3], [[0] * 3, [1] * 3]], np.uint8), 2).tolist()
    [[[1, 1, 1]]]
    """
    array = _as_rgb(image)
    if not 1 <= factor <= MAX_FACTOR:
        raise ValueError(f"`factor` is {factor}; it must lie in 1 to {MAX_FACTOR}")
    if array.shape[0] % factor or array.shape[1] % factor:
        raise ValueError(f"{array.shape[0]} x {array.shape[1]} pixels can't be cut into squares of {factor}")
    out = np.empty((array.shape[0] // factor, array.shape[1] // factor, 3), np.uint8)
    if out.size:
        _box_mean(array, factor, out)
    return out


def separable(
    image: ArrayLike, rows: tuple[ArrayLike, ArrayLike], cols: tuple[ArrayLike, ArrayLike]
) -> NDArray[np.uint8]:
    """Weigh the rows, then the columns of an image, and round half up.

    Output pixel (r, c) is the sum over k and l of ``row_weights[r, k] * col_weights[c, l] * image[tops[r] + k,
    lefts[c] + l]``, divided by 4 ** `WEIGHT_BITS`. Sums are exact: a pixel does not depend on those around it.

    Parameters
    ----------
    image : (H, W, 3) uint8 array_like
        The source.
    rows, cols : (first, weights)
        first : (n,) integers, the first source row (column) of each output row (column); weights : (n, taps) integers,
        not negative, each row of which sums to 2 ** `WEIGHT_BITS`.

    Returns
    -------
    (len(rows), len(cols), 3) uint8 array

    Raises
    ------
    TypeError, ValueError
        If `image` is not an RGB image of uint8, or if the taps are malformed or reach outside it.

    Examples
    --------
    >>> import numpy as np
    >>> half = (np.array([0]), np.array([[1024, 1024]]))
    >>> separable(np.array([[[10] * 3, [20] * 3]] * 2, np.uint8), half, half).tolist()
    [[[15, 15, 15]]]
    """
    array = _as_rgb(image)
    tops, row_weights = _as_taps(rows, array.shape[0], "rows")
    lefts, col_weights = _as_taps(cols, array.shape[1], "cols")
    out = np.empty((len(tops), len(lefts), 3), np.uint8)
    if out.size:
        _separable(array, tops, row_weights, lefts, col_weights, WEIGHT_BITS, out)
    return out


def _as_taps(taps: tuple[ArrayLike, ArrayLike], size: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    first, weights = np.asarray(taps[0]), np.asarray(taps[1])
    if first.ndim != 1 or weights.ndim != 2 or len(first) != len(weights):
        raise ValueError(f"`{name}` has first {first.shape} and weights {weights.shape}; must be (n,) and (n, taps)")
    if not all(np.issubdtype(array.dtype, np.integer) for array in (first, weights)):
        raise TypeError(f"`{name}` must be integers, not {first.dtype} and {weights.dtype}")
    if weights.size and (weights.min() < 0 or np.any(weights.sum(axis=1) != 1 << WEIGHT_BITS)):
        raise ValueError(f"the weights of `{name}` must not be negative, and sum to {1 << WEIGHT_BITS}")
    if first.size and (first.min() < 0 or first.max() + weights.shape[1] > size):
        raise ValueError(f"`{name}` reaches outside the image's {size} pixels")
    return np.ascontiguousarray(first, np.int64), np.ascontiguousarray(weights, np.int16)
