"""Maps as a network predicts them, and the label images beneath: one generator for all benchmarks and some tests."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.engine.bench.kernels import draw_ellipse

NUCLEI_PER_PIXEL = 470e-6
SEMI_AXES = ((20.0, 4.0), (15.0, 3.0))  # mean and spread in px; with overlaps they give 32 % foreground
SMALLEST = 4.0
NOISE = ((1.5, 0.6), (6.0, 0.6))  # (smoothing in px, standard deviation in px of distance)


@functools.cache
def predicted(size: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a predicted-like distance map and its true labels.

    Parameters
    ----------
    size : int
        Edge of the square in pixels.
    seed : int
        Of the generator.

    Returns
    -------
    distance : (size, size) float32 array
        Ellipses' distance to their outline, the largest where they overlap, and smooth noise; read-only.
    labels : (size, size) int32 array
        Which ellipse gave the value; read-only.
    """
    rng = np.random.default_rng(seed)
    count = max(1, round(NUCLEI_PER_PIXEL * size * size))
    distance = np.zeros((size, size), np.float32)
    labels = np.zeros((size, size), np.int32)
    for label in range(1, count + 1):
        row, col = rng.uniform(0, size, 2)
        major, minor = (max(SMALLEST, rng.normal(*axis)) for axis in SEMI_AXES)
        draw_ellipse(distance, labels, label, (row, col), (major, minor), rng.uniform(0, np.pi))
    for smoothing, deviation in NOISE:
        noise = ndi.gaussian_filter(rng.standard_normal((size, size), np.float32), smoothing)
        distance += noise * np.float32(deviation / noise.std()) * (distance > 0)
    distance.setflags(write=False)
    labels.setflags(write=False)
    return distance, labels


def touching(size: int) -> NDArray[np.int32]:
    """Return true labels whose foreground is that of the map above one half."""
    distance, labels = predicted(size)
    return np.where(distance > np.float32(0.5), labels, 0).astype(np.int32)
