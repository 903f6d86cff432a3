"""Learning from images of which only some nuclei are outlined: how far each unlabelled pixel counts as background.

Mercadier, Besbinar, Frossard: "Automatic segmentation of nuclei in histopathology images using encoding-decoding
convolutional neural networks", 2019, sections 2.2 and 2.3.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.training.augmentation import OD_FLOOR, OD_RANGE
from nuclix.ext.stains import stain_inverse

MAX_ROUNDS = 100  # of k-means, which settles in a tenth of that
HASH_BYTES = 8


def haematoxylin_and_eosin(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the (2, H, W) amounts of haematoxylin and eosin of (H, W, 3) RGB, by colour deconvolution.

    The third stain of the deconvolution is at right angles to both (Ruifrok and Johnston, 2001).
    """
    levels = np.arange(OD_RANGE)
    density = -np.log10((levels + OD_FLOOR) / OD_RANGE)
    table = (density[:, None, None] * stain_inverse()).astype(np.float32)  # (grey level, channel, stain)
    return np.stack([sum(table[image[..., c], c, stain] for c in range(3)) for stain in range(2)]).astype(np.float32)


def two_means(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of (dimensions, N) points lie in the second of two clusters (k-means, k = 2).

    Starts from the halves below and above the first dimension's mean, so that the result is a function of the points.
    """
    second = points[0] > points[0].mean(dtype=np.float64)
    for _ in range(MAX_ROUNDS):
        if second.all() or not second.any():
            break
        low, high = (points[:, chosen].mean(1, dtype=np.float64) for chosen in (~second, second))
        axis = (high - low).astype(np.float32)
        moved = axis @ points > np.float32((high @ high - low @ low) / 2)
        if np.array_equal(moved, second):
            break
        second = moved
    return second


def background_cluster(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return b of eq. 4: where an (H, W, 3) image's stains are in the larger of two clusters (section 2.2)."""
    stains = haematoxylin_and_eosin(image)
    second = two_means(stains.reshape(2, -1)).reshape(stains.shape[1:])
    return second if 2 * np.count_nonzero(second) > second.size else ~second


def eroded(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the mask eroded by a disc (b ⊖ c of eq. 4); the image's edge erodes nothing."""
    from scipy.ndimage import distance_transform_edt

    if mask.all():
        return mask
    return np.asarray(distance_transform_edt(mask) > radius)


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the mask dilated by a disc (section 3.1)."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    return np.asarray(distance_transform_edt(~mask) <= radius)


def near_nuclei(nuclei: NDArray[np.bool_], alpha: float, beta: float) -> NDArray[np.float32]:
    """Return m of eq. 3 from the Euclidean distance d of eq. 2: 1 up to alpha px from a nucleus, then it fades.

    Parameters
    ----------
    nuclei : (H, W) bool
        Where nuclei are outlined; without any, m is 0 everywhere.
    alpha : float
        px.
    beta : float
        How fast it fades, per px.
    """
    from scipy.ndimage import distance_transform_edt

    if not nuclei.any():
        return np.zeros(nuclei.shape, np.float32)
    distance = distance_transform_edt(~nuclei)
    return np.exp(-beta * np.maximum(distance - alpha, 0)).astype(np.float32)


def not_outlined(labels: NDArray[np.int32], share: float) -> NDArray[np.bool_]:
    """Return where the nuclei lie that a partial annotation of a full one leaves out.

    A nucleus is outlined if a hash of its first pixel (row, column), as a fraction, lies below `share`.
    """
    names, first, index = np.unique(labels, return_index=True, return_inverse=True)
    width = labels.shape[1]
    left_out = np.array(
        [name != 0 and _fraction(*divmod(int(at), width)) >= share for name, at in zip(names, first, strict=True)]
    )
    return left_out[index.reshape(labels.shape)]


def _fraction(row: int, column: int) -> float:
    digest = hashlib.sha256(f"{row},{column}".encode()).digest()
    return int.from_bytes(digest[:HASH_BYTES]) / 256**HASH_BYTES


def touching(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of nuclei that have another nucleus among their eight neighbours."""
    from scipy.ndimage import maximum_filter, minimum_filter

    nuclei = labels > 0
    beyond = np.where(nuclei, labels, np.iinfo(np.int32).max)
    other: NDArray[Any] = (maximum_filter(labels, 3) != labels) | (minimum_filter(beyond, 3) != beyond)
    return nuclei & other
