"""Maxima and their watershed regions in one pass: the split of DIST."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _flooding
from nuclix.ext._check import as_image, as_mask, check_connectivity, check_shape


def dynamics_watershed(
    image: ArrayLike, h: float, floor: float, connectivity: int = 4, mask: ArrayLike | None = None
) -> NDArray[np.int32]:
    """Find the maxima whose dynamics exceed `h` and grow their watershed regions downhill to `floor`.

    Equal to `h_maxima` followed by `watershed` of the negated image, but in one pass: pixels are visited from high
    to low with union-find; where two basins meet at level v, the lower one's dynamics are its peak - v: at or under
    `h` it joins, above it both stay (Naylor et al., IEEE TMI 2018, eq. 4; Grimaud 1992 for dynamics).

    Parameters
    ----------
    image : (H, W) float32 array_like
        Heights; NaN lies under every floor.
    h : float
        At least 0. A maximum counts if its dynamics on max(image, floor) are greater; for 0 every regional maximum
        does, a plateau being one maximum.
    floor : float
        Only pixels above it (compared as float32) are labelled; a clump's highest maximum has dynamics peak - floor.
    connectivity : int
        4 or 8: one neighbourhood for maxima, paths and flooding.
    mask : (H, W) bool or uint8 array_like, optional
        Pixels where it is 0 count as floor.

    Returns
    -------
    (H, W) int32 array
        0 where there is no nucleus; labels count from 1 in the order of their maxima's first pixels (row, then column).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Ties are broken by (value, raster position), so that labels depend on a clump's pixels and their relative
    places only: the same clump in a crop gives the same regions.
    """
    heights = as_image(image, "image", (np.float32,))
    check_connectivity(connectivity)
    if not h >= 0:
        raise ValueError(f"`h` is {h}; it must be at least 0")
    inside = None
    if mask is not None:
        inside = as_mask(mask)
        check_shape(inside, heights.shape, "mask")
    out = np.zeros(heights.shape, np.int32)
    if out.size:
        _flooding.flood_clumps(heights, inside, None, out, floor, h, 0, connectivity, False)
    return out
