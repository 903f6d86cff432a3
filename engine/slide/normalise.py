"""Bring the stain of a slide to that of a reference before a network sees it.

Reinhard: mean and standard deviation in l-alpha-beta space (`engine.slide.reinhard`). Macenko: stain vectors and the
99th percentile of each stain's amount (ISBI 2009, section 2.3). A slide's own statistics are taken once, from samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.slide.reinhard import Moments, from_lab, moments, to_lab
from nuclix.engine.slide.stains import MIN_OD, MIN_PIXELS, estimate_stain_vectors, stained
from nuclix.ext.stains import optical_density

Normaliser = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

REINHARD, MACENKO = "reinhard", "macenko"
_FULL = 99.0  # percentile of a stain's amount that counts as full stain (the paper's pseudo-maximum)
_WHITE = 255.0
_MIN_AMOUNT = 0.01  # optical density: less than this is no stain


@dataclass(frozen=True, slots=True)
class StainProfile:
    """The stain of a slide.

    Attributes
    ----------
    vectors : (2, 3) float64
        Optical densities of hematoxylin and eosin, of unit length.
    full : (2,) float64
        99th percentile of the amount of each.
    lab : Moments
        Mean and standard deviation of stained pixels in l-alpha-beta space.
    """

    vectors: NDArray[np.float64]
    full: NDArray[np.float64]
    lab: Moments


# Of all pixels, at 0.5 um/px, of the twelve training images of Kumar et al. (IEEE TMI 2017) that the models named
# *-kumar16 learnt from.
REFERENCE = StainProfile(
    vectors=np.array([[0.6035, 0.7097, 0.3634], [0.2218, 0.8189, 0.5294]]),
    full=np.array([1.146, 0.809]),
    lab=Moments(np.array([3.6024, -0.0487, 0.0296]), np.array([0.2245, 0.0472, 0.0129])),
)


def stain_profile(rgb: NDArray[np.uint8]) -> StainProfile:
    """Measure the stain of pixels.

    Parameters
    ----------
    rgb : (N, 3) uint8
        Pixels of a slide at about 0.5 um/px, such as those of `TissueSamples`.

    Raises
    ------
    DataError
        If too few pixels are stained, or all have one colour.
    """
    vectors = estimate_stain_vectors(rgb)
    full = np.percentile(stained(rgb) @ np.linalg.pinv(vectors), _FULL, axis=0)
    dense = rgb[optical_density()[rgb].mean(axis=1) > MIN_OD]
    if len(dense) < MIN_PIXELS or (full < _MIN_AMOUNT).any():
        raise DataError(f"the stain can't be measured: {len(dense)} stained pixels")
    return StainProfile(vectors, full, moments(dense[None]))


def stain_normaliser(method: str, own: StainProfile, target: StainProfile = REFERENCE) -> Normaliser:
    """Return what takes pixels of a slide to the stain of a target.

    Parameters
    ----------
    method : str
        ``reinhard`` or ``macenko``.
    own, target : StainProfile
        Of the slide, and wanted.

    Returns
    -------
    callable
        From (..., 3) uint8 to the same shape; a pixel's new colour depends on its own alone.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    if method == REINHARD:
        return lambda rgb: _reinhard(rgb, own.lab, target.lab)
    if method != MACENKO:
        raise ValueError(f"no method of stain normalisation: {method!r}")
    amounts = np.linalg.pinv(own.vectors) * (target.full / own.full)
    matrix = (amounts @ target.vectors).astype(np.float32)
    densities = optical_density().astype(np.float32)

    def normalise(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        light = _WHITE * np.power(np.float32(10), -(densities[rgb] @ matrix))
        return np.rint(np.clip(light, 0, _WHITE)).astype(np.uint8)

    return normalise


def _reinhard(rgb: NDArray[np.uint8], own: Moments, target: Moments) -> NDArray[np.uint8]:
    gain = target.deviation / own.deviation
    return from_lab((to_lab(rgb) - own.mean) * gain + target.mean)
