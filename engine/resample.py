"""Resampling to the model's scale, such that a pixel's value does not depend on the box that it was read in.

Every output pixel is computed from its absolute coordinates with integer weights, so sums are exact whatever their
order and two boxes that share a pixel agree on it to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEIGHT_BITS = 11  # 8-bit values times two weights of 11 bits fit a 32-bit integer, so nothing is rounded in between


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


def separable(image: NDArray[np.uint8], rows: Taps, cols: Taps) -> NDArray[np.uint8]:
    """Weigh rows, then columns, and round half up.

    Parameters
    ----------
    image : (height, width, 3) uint8
        The source pixels [rows.start, rows.stop) x [cols.start, cols.stop).
    rows, cols : Taps
        The taps of either axis.

    Returns
    -------
    (len(rows.first), len(cols.first), 3) uint8
    """
    top, left = rows.first - rows.start, cols.first - cols.start
    tall = np.zeros((len(top), *image.shape[1:]), np.int32)
    for tap in range(rows.weights.shape[1]):
        tall += image[top + tap] * rows.weights[:, tap, None, None]
    out = np.full((len(top), len(left), image.shape[2]), 1 << (2 * WEIGHT_BITS - 1), np.int32)
    for tap in range(cols.weights.shape[1]):
        out += tall[:, left + tap] * cols.weights[None, :, tap, None]
    return (out >> (2 * WEIGHT_BITS)).astype(np.uint8)


def box_mean(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return the mean of every factor x factor pixels, rounded half up.

    Parameters
    ----------
    image : (height, width, 3) uint8
        Height and width are multiples of `factor`.
    factor : int
        Source pixels along an output pixel.

    Returns
    -------
    (height / factor, width / factor, 3) uint8
    """
    height, width, channels = image.shape
    if height % factor or width % factor:
        raise ValueError(f"{height} x {width} pixels can't be cut into squares of {factor}")
    rows = image.reshape(height // factor, factor, width * channels).sum(axis=1, dtype=np.uint32)
    sums = rows.reshape(height // factor, width // factor, factor, channels).sum(axis=2, dtype=np.uint32)
    return ((sums + factor * factor // 2) // (factor * factor)).astype(np.uint8)
