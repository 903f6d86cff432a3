"""Where each pixel lies in its nucleus: HoVer-Net's horizontal and vertical distances (section 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def centre_distances(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return how far each pixel is from its nucleus' centre of mass.

    Parameters
    ----------
    labels : (H, W) int32
        Label image.

    Returns
    -------
    (2, H, W) float32
        Along rows (positive to the right) and along columns (positive downwards), each side of a nucleus scaled to end
        at -1 or 1; 0 outside.
    """
    from scipy.ndimage import find_objects

    out = np.zeros((2, *labels.shape), np.float32)
    _, numbers = np.unique(labels, return_inverse=True)
    names = numbers.reshape(labels.shape) + (0 if (labels == 0).any() else 1)
    for number, box in enumerate(find_objects(names), 1):
        if box is None:
            continue
        inside = names[box] == number
        rows, cols = np.nonzero(inside)
        for plane, places in ((out[0], cols), (out[1], rows)):
            plane[box][inside] = _from_centre(places)
    return out


def _from_centre(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return places less their rounded mean, either side scaled to end at -1 or 1."""
    away = (places - np.floor(places.mean() + 0.5)).astype(np.float64)
    for side in (away < 0, away > 0):
        if side.any():
            away[side] /= np.abs(away[side]).max()
    return away
