"""Maxima and their watershed regions in one pass: the split of DIST."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _flooding
from nuclix.ext._check import as_image, check_connectivity, check_dynamics, check_mask


def dynamics_watershed(
    image: ArrayLike,
    h: float,
    floor: float,
    connectivity: int = 4,
    mask: ArrayLike | None = None,
    min_area: int = 0,
) -> NDArray[np.int32]:
    """Find the maxima whose dynamics exceed `h` and grow their watershed regions downhill to `floor`.

    The same labels as `h_maxima` and then `watershed` of the negated image inside image > floor, in one pass: pixels
    are visited from high to low with union-find; where two basins meet at level v, the lower one's dynamics are its
    peak - v: at or under `h` it joins, above it both stay (Naylor et al., IEEE TMI 2018, eq. 4).

    Parameters
    ----------
    image : (H, W) float32 array_like
        Heights; NaN lies under every floor.
    h : float
        Finite, at least 0. A maximum counts if its dynamics on max(image, floor) are greater; for 0 every regional
        maximum does, a plateau being one maximum.
    floor : float
        Only pixels above it (compared as float32) are labelled; a clump's highest maximum has dynamics peak - floor.
    connectivity : int
        4 or 8: one neighbourhood for maxima, paths and flooding.
    mask : (H, W) bool or uint8 array_like, optional
        Pixels where it is 0 count as floor.
    min_area : int
        Regions of fewer pixels are dropped, not given to their neighbours.

    Returns
    -------
    (H, W) int32 array
        0 where there is no region; labels count from 1 in the order of their maxima's first pixels (row, then column).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Ties are broken by (value, raster position), so that labels depend on a clump's pixels and their relative places
    only: the same clump in a crop gives the same regions. Time is linear in the pixels above the floor.

    Examples
    --------
    >>> import numpy as np
    >>> dynamics_watershed(np.array([[5, 3, 4, 1, 2]], np.float32), h=1, floor=0)
    array([[1, 1, 1, 1, 1]], dtype=int32)
    >>> dynamics_watershed(np.array([[5, 3, 4, 1, 2]], np.float32), h=0.5, floor=0)
    array([[1, 1, 2, 2, 3]], dtype=int32)
    """
    heights = as_image(image, "image", (np.float32,))
    h, lowest = check_dynamics(h, floor)
    check_connectivity(connectivity)
    inside = check_mask(mask, heights.shape)
    out = np.zeros(heights.shape, np.int32)
    if out.size:
        _flooding.flood_clumps(heights, inside, out, lowest, h, min_area, connectivity, False)
    return out
