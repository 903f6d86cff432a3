"""Where horizontal and vertical distance maps fall: the energy that HoVer-Net's watershed floods."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _gradient_energy
from nuclix.ext._check import as_image, as_labels, as_mask, check_shape
from nuclix.ext.boxes import label_boxes


def sobel_weights(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the smoothing and the differentiating weights of a Sobel filter.

    The smoothing weights are a row of Pascal's triangle; the others are the difference of neighbours, smoothed by the
    row before the last but one. Both are scaled so that the filter gives the slope of a plane.

    Parameters
    ----------
    size : int
        Number of weights; odd, at least 3.

    Returns
    -------
    (size,) float32, (size,) float32

    Examples
    --------
    >>> sobel_weights(3)[0], sobel_weights(3)[1]
    (array([0.25, 0.5 , 0.25], dtype=float32), array([-0.5,  0. ,  0.5], dtype=float32))
    """
    smooth = np.ones(1)
    for _ in range(size - 2):
        smooth = np.convolve(smooth, [0.5, 0.5])
    slope = np.convolve(smooth, [-1.0, 1.0])
    slope /= (np.arange(size) * slope).sum()
    slope[size // 2] = 0
    return np.convolve(smooth, [0.5, 0.5]).astype(np.float32), slope.astype(np.float32)


def sobel(image: ArrayLike, clumps: ArrayLike, size: int, axis: int) -> NDArray[np.float32]:
    """Return the slope of an image along an axis, where there are clumps.

    Parameters
    ----------
    image : (H, W) float32 array_like
        Any; beyond the array it is 0.
    clumps : (H, W) integer array_like
        Only rows between clumps' first and last pixel are filtered; elsewhere the result is 0.
    size : int
        Number of weights; odd, at least 3. A pixel depends on `size` // 2 px around it.
    axis : int
        0: downwards; 1: to the right.

    Returns
    -------
    (H, W) float32
        Per pixel.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """
    heights, owners = as_image(image, "image", (np.float32,)), as_labels(clumps, "clumps")
    check_shape(owners, heights.shape, "clumps")
    if size < 3 or size % 2 == 0:
        raise ValueError(f"`size` is {size}; it must be odd and at least 3")
    if axis not in (0, 1):
        raise ValueError(f"`axis` is {axis}; it must be 0 or 1")
    out = np.zeros(heights.shape, np.float32)
    if out.size:
        smooth, slope = sobel_weights(size)
        across, along = (slope, smooth) if axis == 0 else (smooth, slope)
        padded = np.pad(heights, size // 2)
        owners = owners.astype(np.int32, copy=False)
        _gradient_energy.gradient(padded, owners, across, along, axis == 0, out)
    return out


def gradient_energy(
    horizontal: NDArray[np.float32],
    vertical: NDArray[np.float32],
    clumps: NDArray[np.int32],
    limits: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return how steeply either of two slopes falls: 1 where it falls most, 0 where it rises most.

    Of each slope s this is (high - s) / (high - low), cut to 0..1; the larger of the two counts.

    Parameters
    ----------
    horizontal, vertical : (H, W) float32
        Slopes.
    clumps : (H, W) int32
        Labels of clumps; 0 is background.
    limits : (float, float), optional
        `low` and `high`, the same for both slopes; else those of each clump's own pixels.

    Returns
    -------
    (H, W) float32
        0 on background.

    Raises
    ------
    TypeError, ValueError
        If the shapes or types differ, or `low` is not below `high`.
    """
    one = as_image(horizontal, "horizontal", (np.float32,))
    two = as_image(vertical, "vertical", (np.float32,))
    owners = as_image(clumps, "clumps", (np.int32,))
    for array, name in ((two, "vertical"), (owners, "clumps")):
        check_shape(array, one.shape, name)
    low, high = limits if limits is not None else (0.0, 0.0)
    if limits is not None and not low < high:
        raise ValueError(f"`limits` are {limits}; the first must be less than the second")
    out = np.zeros(one.shape, np.float32)
    if out.size:
        _gradient_energy.energy(one, two, owners, int(owners.max()), low, high, out)
    return out


def flooding_order(energy: NDArray[np.float32], mask: ArrayLike) -> NDArray[np.float32]:
    """Return minus the 3 x 3 binomial mean of (1 - energy), which is 0 outside the mask: low values flood first.

    Raises
    ------
    TypeError, ValueError
        If `energy` is not a float32 image or `mask` not a mask of its shape.
    """
    image, inside = as_image(energy, "energy", (np.float32,)), as_mask(mask)
    check_shape(inside, image.shape, "mask")
    out = np.zeros(image.shape, np.float32)
    if out.size:
        _gradient_energy.smoothed_inverse(image, inside, out)
    return out


def fill_label_holes(labels: NDArray[np.int32], clumps: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give labels the pixels that they enclose, but only those of their own clump.

    A pixel is enclosed if no path of 4-neighbours leads from it around the label to infinity. So what lies in a
    clump depends on that clump alone: a clump inside the ring of another is not swallowed.

    Parameters
    ----------
    labels : (H, W) int32
        0 is background; a label lies in one clump. Labels are filled in rising order.
    clumps : (H, W) int32
        Labels of clumps; 0 is background.

    Returns
    -------
    (H, W) int32
        A new array.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not int32 images of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.int32)
    >>> fill_label_holes(ring, np.ones((3, 3), np.int32))[1]
    array([1, 1, 1], dtype=int32)
    """
    image = as_image(labels, "labels", (np.int32,)).copy()
    owners = as_image(clumps, "clumps", (np.int32,))
    check_shape(owners, image.shape, "clumps")
    if image.size:
        _gradient_energy.fill_holes(image, owners, label_boxes(image, int(image.max())))
    return image
