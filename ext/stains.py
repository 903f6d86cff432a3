"""Statistics of stains over the objects of a label image, as QuPath computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _label_statistics
from nuclix.ext.outlines import label_rows

# QuPath's default stain vectors for H&E, optical densities of red, green and blue: shown with five decimals in its
# window, with these digits they give its measurements.
HEMATOXYLIN = (0.6511078, 0.7011930, 0.2904943)
EOSIN = (0.2158989, 0.8011960, 0.5580972)
BACKGROUND = 255.0  # the level of a channel without stain

_LEVELS = 256
# Estimation (Macenko et al. 2009): optical density below which a pixel counts as unstained (theirs is 0.15 in natural
# logarithms), their percentiles of the angles between stained pixels, and what an estimate must rest on.
_MIN_DENSITY = 0.15 / np.log(10)
_ANGLE_PERCENTILES = (1.0, 99.0)
_MIN_STAINED = 1000
_MIN_ANGLE = np.radians(5.0)
_VECTOR_DECIMALS = 4  # as QuPath shows them; further digits differ between machines
_MIN_CROSS_PRODUCT = 1e-6  # of unit vectors: below it the stains can't be told apart


@dataclass(frozen=True, slots=True)
class StainStatistics:
    """Statistics of N objects' pixels, each (N, 2) float64: hematoxylin, eosin, as optical densities.

    Attributes
    ----------
    mean, median, min, max : array
        The median of an even number of pixels is the mean of the two in the middle.
    std : array
        Standard deviation of a sample (n - 1); 0 for an object of one pixel.
    """

    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    std: NDArray[np.float64]


def stain_inverse(hematoxylin: ArrayLike = HEMATOXYLIN, eosin: ArrayLike = EOSIN) -> NDArray[np.float64]:
    """Return the matrix that takes optical densities to stains (colour deconvolution: Ruifrok and Johnston 2001).

    The third stain is the normalised cross product of the two, as in QuPath: it takes what neither explains.

    Parameters
    ----------
    hematoxylin, eosin : (3,) array_like
        Stain vectors: optical densities of red, green, blue. They are normalised.

    Returns
    -------
    (3, 2) float64
        ``od @ inverse`` is (hematoxylin, eosin).

    Raises
    ------
    ValueError
        If a vector does not have three finite numbers, or the two point the same way.

    Examples
    --------
    >>> stain_inverse().round(6).tolist()
    [[1.838331, -1.373321], [0.033906, 0.771885], [-0.75983, 1.214963]]
    """
    given = [np.asarray(vector, np.float64) for vector in (hematoxylin, eosin)]
    if any(vector.shape != (3,) or not np.isfinite(vector).all() for vector in given):
        raise ValueError(f"a stain vector has three finite numbers: not {hematoxylin!r} and {eosin!r}")
    vectors = np.array(given)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("a stain vector must not be zero")
    vectors /= lengths
    third = np.cross(vectors[0], vectors[1])
    if np.linalg.norm(third) < _MIN_CROSS_PRODUCT:
        raise ValueError(f"the stain vectors {hematoxylin!r} and {eosin!r} point the same way")
    return np.ascontiguousarray(np.linalg.inv([*vectors, third / np.linalg.norm(third)])[:, :2])


def estimate_stains(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Estimate the stain vectors of hematoxylin and eosin from the pixels of a slide.

    Optical densities of stained pixels lie in the plane of their two largest principal components; the stains are the
    directions between which nearly all of them lie, and hematoxylin is the one that absorbs more red (Macenko et al.,
    A method for normalizing histology slides for quantitative analysis, 2009).

    Parameters
    ----------
    pixels : (N, 3) uint8
        RGB of tissue.

    Returns
    -------
    hematoxylin, eosin : tuple of float
        Unit vectors: optical densities of red, green, blue.

    Raises
    ------
    ValueError
        If fewer than 1,000 pixels are stained, or all of them with one stain.
    """
    density = optical_density()[np.asarray(pixels)]
    stained = density[(density > _MIN_DENSITY).all(axis=1)]
    if len(stained) < _MIN_STAINED:
        raise ValueError(f"{len(stained)} stained pixels are too few to estimate stain vectors")
    _, components = np.linalg.eigh(np.cov(stained.T))
    plane = components[:, ::-1][:, :2]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    along = stained @ plane
    angles = np.percentile(np.arctan2(along[:, 1], along[:, 0]), _ANGLE_PERCENTILES)
    if angles[1] - angles[0] < _MIN_ANGLE:
        raise ValueError("the pixels are stained with one stain, or all alike")
    vectors = np.clip(plane @ np.stack([np.cos(angles), np.sin(angles)]), 0.0, None).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors[np.argsort(-vectors[:, 0])].round(_VECTOR_DECIMALS)
    return tuple(vectors[0].tolist()), tuple(vectors[1].tolist())


def optical_density() -> NDArray[np.float64]:
    """Return the optical density of each level 0..255: max(0, -log10(max(level, 1) / 255))."""
    levels = np.maximum(np.arange(_LEVELS), 1) / BACKGROUND
    return np.maximum(0.0, -np.log10(levels))


def stain_statistics(
    labels: NDArray[np.generic], rgb: NDArray[np.uint8], inverse: NDArray[np.float64] | None = None
) -> StainStatistics:
    """Return statistics of hematoxylin and eosin over each label, in order of first pixel.

    The order is that of `nuclix.ext.outlines.outlines`. A pixel's stains are rounded to float32, as QuPath keeps them.
    An object's numbers depend on its own pixels alone and not on where the image was cut.

    Parameters
    ----------
    labels : (H, W) integer or bool array
        0 is background.
    rgb : (H, W, 3) uint8
        The pixels, in any memory order.
    inverse : (3, 2) float64, optional
        From `stain_inverse`; QuPath's default stains if None.

    Returns
    -------
    StainStatistics
        Of N labels.

    Raises
    ------
    TypeError
        If `labels` does not hold whole numbers or `rgb` is not uint8.
    ValueError
        If shapes don't fit.
    """
    rows = label_rows(labels)
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, not {rgb.dtype}")
    if rgb.shape != (*rows.shape, 3):
        raise ValueError(f"pixels of shape {rgb.shape} don't fit labels of shape {rows.shape}: they must be (H, W, 3)")
    matrix = stain_inverse() if inverse is None else np.asarray(inverse, np.float64)
    if matrix.shape != (3, 2) or not np.isfinite(matrix).all():
        raise ValueError(f"the inverse must be a finite (3, 2) matrix, not of shape {matrix.shape}")
    table = np.ascontiguousarray(optical_density()[None, :, None] * matrix[:, None, :])
    found = _label_statistics.stain_statistics(rows, rgb, table)
    return StainStatistics(*(np.ascontiguousarray(found[:, :, k]) for k in range(found.shape[2])))
