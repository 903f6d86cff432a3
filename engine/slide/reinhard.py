"""Colour transfer in l-alpha-beta space.

Reinhard, Ashikhmin, Gooch, Shirley: "Color transfer between images", IEEE Computer Graphics and Applications 21 (2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# RGB to LMS (eq. 4 of Reinhard et al.; the rows are those of the CIE's XYZ and of Hunt-Pointer-Estevez taken together).
LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
# log LMS to l-alpha-beta (eq. 6; Ruderman et al. 1998): orthogonal, so its inverse is its transpose.
LAB = np.diag(np.sqrt([1 / 3, 1 / 6, 1 / 2])) @ np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]])
FLOOR = 1.0  # added to 0..255 so that black has a logarithm
MIN_DEVIATION = 1e-3  # of log10: a flat tile keeps its noise as it is, not magnified
WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of an image in l-alpha-beta, three numbers each."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def to_lab(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (..., 3) l-alpha-beta (decadic logarithms) of (..., 3) RGB 0..255."""
    lms = (image.astype(np.float64) + FLOOR) @ LMS.T
    lab: NDArray[np.float64] = np.log10(lms) @ LAB.T
    return lab


def from_lab(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (..., 3) RGB, rounded and cut to 0..255, of (..., 3) l-alpha-beta."""
    rgb = 10.0 ** (lab @ LAB) @ np.linalg.inv(LMS).T - FLOOR
    return np.rint(np.clip(rgb, 0, WHITE)).astype(np.uint8)


def moments(image: NDArray[np.uint8]) -> Moments:
    """Return the statistics of an (H, W, 3) RGB image that a transfer takes to another."""
    lab = to_lab(image).reshape(-1, 3)
    return Moments(lab.mean(axis=0), np.maximum(lab.std(axis=0), MIN_DEVIATION))


def transfer(image: NDArray[np.uint8], target: Moments) -> NDArray[np.uint8]:
    """Return an (H, W, 3) RGB image with the mean and standard deviation of `target` (eq. 10, 11).

    Examples
    --------
    >>> import numpy as np
    >>> pink = np.full((2, 2, 3), (220, 170, 200), np.uint8)
    >>> transfer(pink, moments(np.full((2, 2, 3), (90, 60, 140), np.uint8)))[0, 0]
    array([ 90,  60, 140], dtype=uint8)
    """
    lab = to_lab(image)
    flat = lab.reshape(-1, 3)
    gain = target.deviation / np.maximum(flat.std(axis=0), MIN_DEVIATION)
    return from_lab((lab - flat.mean(axis=0)) * gain + target.mean)
