"""Maxima by their dynamics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _flooding
from nuclix.ext._check import as_heights, check_connectivity, check_dynamics


def h_maxima(image: ArrayLike, h: float, floor: float | None = None, connectivity: int = 4) -> NDArray[np.int32]:
    """Label the maxima whose dynamics on max(image, floor) exceed `h`.

    A maximum is a plateau (connected pixels of one value) without a higher neighbour. Its dynamics are how far one
    must go down from it on the best path to a higher maximum; of maxima of one height the one that comes first in
    raster order is the higher (Grimaud, SPIE 1992; in topology: persistence). The highest maximum of a clump, a
    connected set of pixels above the floor, has dynamics peak - floor.

    Parameters
    ----------
    image : (H, W) array_like
        float32, float16, or integers of at most 2^24 in magnitude. NaN lies under every floor.
    h : float
        Finite, at least 0. Dynamics must be greater; for 0 every maximum counts.
    floor : float, optional
        Only pixels above it can be maxima (compared as float32). Without one the highest maximum of every connected
        set of numbers counts, whatever `h` is.
    connectivity : int
        4 or 8: neighbourhood of plateaus and paths.

    Returns
    -------
    (H, W) int32 array
        0 outside maxima; they count from 1 in the order of their first pixels (row, then column).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Unlike `skimage.morphology.h_maxima`, which takes dynamics of `h` and more, the comparison is strict (of differences
    in float64), and of two equal maxima that no dip deeper than `h` parts, one is taken, not both.
    Time is linear in the pixels above the floor.

    Examples
    --------
    >>> import numpy as np
    >>> h_maxima(np.array([[5, 3, 4, 0, 2]], np.uint8), h=1, floor=0)
    array([[1, 0, 0, 0, 2]], dtype=int32)
    """
    heights = as_heights(image)
    h, lowest = check_dynamics(h, floor)
    check_connectivity(connectivity)
    out = np.zeros(heights.shape, np.int32)
    if out.size:
        _flooding.flood_clumps(heights, None, out, lowest, h, 0, connectivity, True)
    return out
