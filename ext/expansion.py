"""Growth of nuclei to cells: labels expanded into the background without overlap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _expansion
from nuclix.ext.outlines import label_rows


def expand_labels(labels: NDArray[Any], distance: float) -> NDArray[Any]:
    """Return the labels grown by at most `distance` pixels.

    A background pixel takes the label of the nearest labelled pixel (Euclidean distance between centres), and of
    equally near ones of the first in raster order. So labels do not overlap, and a pixel's result depends on what lies
    within `distance` alone. A label's growth depends on the labels within `expansion_context(distance)` pixels: with
    that much context it is the same wherever the image is cut.

    Parameters
    ----------
    labels : (H, W) integer or bool array
        0 is background.
    distance : float
        In pixels, 0 or more.

    Returns
    -------
    (H, W) array
        Of the labels' type (int64 where the kernel does not read it; bool becomes uint8).

    Raises
    ------
    TypeError
        If `labels` does not hold whole numbers.
    ValueError
        If `labels` is not an image, or the distance is negative or not finite.

    Examples
    --------
    >>> expand_labels(np.array([[0, 0, 1, 0, 0, 2, 0]]), 1)
    array([[0, 1, 1, 1, 2, 2, 2]])
    """
    if not (math.isfinite(distance) and distance >= 0):
        raise ValueError(f"the distance must be a number of pixels, 0 or more, not {distance}")
    rows = np.ascontiguousarray(label_rows(labels))
    out = np.zeros_like(rows)
    if rows.size:
        _expansion.expand(rows, min(float(distance), float(sum(rows.shape))), out)
    return out


def expansion_context(distance: float) -> int:
    """Return the pixels of context that decide how far a label grows: rivals grow towards it as far as it does."""
    return 2 * math.ceil(distance)
