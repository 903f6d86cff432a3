"""Lists of different lengths in one array: where each begins and ends, and how some of them are gathered."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def offsets_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where lists of these lengths begin and end when they lie one after the other.

    Parameters
    ----------
    lengths : (N,) array_like of int
        Of each list; 0 is allowed.

    Returns
    -------
    (N + 1,) int64
        List i is ``offsets[i]:offsets[i + 1]``.

    Examples
    --------
    >>> offsets_of([3, 0, 2]).tolist()
    [0, 3, 3, 5]
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def gathered(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index that gathers lists from one array: ``arange(start, start + length)`` of each, joined.

    Parameters
    ----------
    starts, lengths : (N,) int64
        Of each list.

    Returns
    -------
    (sum of lengths,) int64

    Examples
    --------
    >>> gathered(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)
