"""Resampling to the model's scale, such that a pixel's value does not depend on the box that it was read in.

Every output pixel's weights are integers computed from its absolute coordinates, and the kernels' sums are exact: two
boxes that share a pixel agree on it to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.resample import WEIGHT_BITS


@dataclass(frozen=True, slots=True)
class Taps:
    """Which source pixels make up each of `count` output pixels along one axis.

    Attributes
    ----------
    first : (count,) int64
        The first source pixel of each output pixel, in absolute coordinates.
    weights : (count, taps) int32
        Weights of it and its successors; each row sums to 2 ** `WEIGHT_BITS`.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.int32]

    @property
    def start(self) -> int:
        """The first source pixel that is needed."""
        return int(self.first[0])

    @property
    def stop(self) -> int:
        """The source pixel after the last that is needed."""
        return int(self.first[-1]) + self.weights.shape[1]

    @property
    def relative(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """`first` counted from `start`, and the weights: what the kernel takes."""
        return self.first - self.start, self.weights


def area_taps(start: int, count: int, factor: float) -> Taps:
    """Return the taps of an area average: output pixel i covers source [i * factor, (i + 1) * factor).

    Parameters
    ----------
    start, count : int
        The output pixels start ... start + count - 1.
    factor : float
        Source pixels along an output pixel, at least 1.

    Returns
    -------
    Taps
    """
    edges = np.arange(start, start + count + 1, dtype=np.float64) * factor
    first = np.floor(edges[:-1]).astype(np.int64)
    borders = first[:, None] + np.arange(int(np.ceil(factor)) + 2)
    covered = np.clip(borders, edges[:-1, None], edges[1:, None]) - edges[:-1, None]
    share = covered / (edges[1:] - edges[:-1])[:, None]
    return Taps(first, np.diff(np.rint(share * (1 << WEIGHT_BITS)).astype(np.int32), axis=1))


def linear_taps(start: int, count: int, factor: float) -> Taps:
    """Return the taps of linear interpolation between the centres of source pixels.

    Parameters
    ----------
    start, count : int
        The output pixels start ... start + count - 1.
    factor : float
        Source pixels along an output pixel, at most 1.

    Returns
    -------
    Taps
    """
    centres = (np.arange(start, start + count, dtype=np.float64) + 0.5) * factor - 0.5
    first = np.floor(centres).astype(np.int64)
    second = np.rint((centres - first) * (1 << WEIGHT_BITS)).astype(np.int32)
    return Taps(first, np.stack([(1 << WEIGHT_BITS) - second, second], axis=1))
