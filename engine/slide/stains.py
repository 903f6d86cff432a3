"""Estimate a slide's stain vectors from its pixels.

Macenko, Niethammer, Marron, Borland, Woosley, Guan, Schmitt, Thomas: "A method for normalizing histology slides for
quantitative analysis", ISBI 2009, section 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.ext.stains import EOSIN, HEMATOXYLIN, optical_density

MIN_OD = 0.15  # of every pixel that counts, in decadic logarithms (the paper's beta)
ANGLE_PERCENTILE = 1.0  # extreme angles in the stain plane are these percentiles (the paper's alpha)
MIN_PIXELS = 1000  # fewer stained pixels give no stable plane
MAX_PIXELS = 1_000_000  # more do not change the estimate; every n-th pixel is taken
BLACK = 20  # darker pixels are borders and pens


def estimate_stain_vectors(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Estimate the optical density vectors of hematoxylin and eosin by Macenko's method.

    Parameters
    ----------
    rgb : (..., 3) uint8
        Pixels of a slide, best at a low resolution (a few um/px). Background does no harm; pens and other dyes do.

    Returns
    -------
    (2, 3) float64
        Rows of unit length and no negative entry: hematoxylin, then eosin.

    Raises
    ------
    DataError
        If fewer than `MIN_PIXELS` pixels are stained, or their colours do not span a plane.
    """
    density = stained(rgb)
    if len(density) < MIN_PIXELS:
        raise DataError(f"stain vectors can't be estimated: {len(density)} stained pixels, {MIN_PIXELS} are needed")
    values, vectors = np.linalg.eigh(np.cov(density.T))
    if values[1] <= 1e-9 * max(values[2], 1e-12):
        raise DataError("stain vectors can't be estimated: all pixels have shades of one colour")
    plane = vectors[:, [2, 1]]  # of the two largest eigenvalues
    plane *= np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    first, second = (density @ plane).T
    angles = np.percentile(np.arctan2(second, first), (ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE))
    ends = np.stack([plane @ (np.cos(angle), np.sin(angle)) for angle in angles])
    ends = np.maximum(ends, 0.0)
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    return np.ascontiguousarray(ends[_hematoxylin_first(ends)])


def _hematoxylin_first(ends: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of two vectors that fits hematoxylin and eosin best."""
    reference = np.array([HEMATOXYLIN, EOSIN])
    order = np.array([0, 1])
    swapped = order[::-1]
    return order if np.sum(ends * reference) >= np.sum(ends[swapped] * reference) else swapped


def stained(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the optical densities of stained pixels: at least `MIN_OD` in every channel, black pixels left out.

    Parameters
    ----------
    rgb : (..., 3) uint8
        Pixels; of more than `MAX_PIXELS`, every n-th is taken.

    Returns
    -------
    (N, 3) float64
    """
    pixels = rgb.reshape(-1, 3)
    pixels = pixels[:: max(1, -(-len(pixels) // MAX_PIXELS))]
    pixels = pixels[pixels.max(axis=1) >= BLACK]
    density = optical_density()[pixels]
    return density[(density >= MIN_OD).all(axis=1)]


def angle_between(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the angle between two vectors in degrees.

    >>> import numpy as np
    >>> round(angle_between(np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])), 3)
    45.0
    """
    cosine = float(np.dot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second)))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
