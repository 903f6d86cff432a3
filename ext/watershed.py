"""Watershed regions of given markers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _flooding
from nuclix.ext._check import as_heights, as_labels, check_connectivity, check_mask, check_shape

MAX_LABEL = int(np.iinfo(np.int32).max)


def watershed(
    image: ArrayLike,
    markers: ArrayLike,
    mask: ArrayLike | None = None,
    connectivity: int = 4,
    overwrite_markers: bool = False,
) -> NDArray[np.int32]:
    """Flood `image` from `markers`, low values first: to split a map at its maxima, pass the map negated.

    A pixel takes the label of the neighbour that is flooded first (Meyer 1991). Pixels are flooded by (value, raster
    position): among equal values the one that comes first by row, then column. So a connected set of the mask is
    labelled in the same way wherever the array is cut around it.

    Parameters
    ----------
    image : (H, W) array_like
        float32, float16, or integers of at most 2^24 in magnitude. NaN is never flooded.
    markers : (H, W) integer array_like
        0 where there is none, else labels from 1 to 2^31 - 1; a label may lie in several places.
    mask : (H, W) bool or uint8 array_like, optional
        Where it is 0 nothing is flooded and markers are ignored.
    connectivity : int
        4 or 8.
    overwrite_markers : bool
        Whether the result may take the memory of `markers`, if they are int32.

    Returns
    -------
    (H, W) int32 array
        The markers' labels; 0 outside the mask and where no marker reaches.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Equal to `skimage.segmentation.watershed` where all values differ. The pixels of a clump are sorted once, so that
    the queue is a row of bits; time is linear in the pixels of the mask.

    Examples
    --------
    >>> import numpy as np
    >>> watershed(np.array([[0, 5, 9, 2, 0]]), np.array([[1, 0, 0, 0, 7]]))
    array([[1, 1, 7, 7, 7]], dtype=int32)
    """
    heights = as_heights(image)
    seeds = as_labels(markers, "markers")
    check_shape(seeds, heights.shape, "markers")
    inside = check_mask(mask, heights.shape)
    check_connectivity(connectivity)
    if seeds.size and (int(seeds.min()) < 0 or (seeds.dtype != np.int32 and int(seeds.max()) > MAX_LABEL)):
        raise ValueError(f"`markers` are {seeds.min()} to {seeds.max()}; they must be 0 to 2^31 - 1")
    labels = seeds.astype(np.int32, copy=not (overwrite_markers and seeds.flags.writeable))
    if labels.size:
        _flooding.flood_markers(heights, inside, labels, connectivity, True)
    return labels
