"""Clumps split where horizontal and vertical distance maps fall: the energy that HoVer-Net's watershed floods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _flooding, _gradient_energy
from nuclix.ext._check import as_image, as_mask, check_shape
from nuclix.ext.boxes import label_boxes

FOUR = 4


@dataclass(frozen=True, slots=True)
class EnergyRule:
    """How clumps are split.

    Attributes
    ----------
    size : int
        Weights of the Sobel filter; odd, at least 3. A pixel depends on `size` // 2 px around it.
    energy : float
        Markers are where the energy is less.
    min_marker : int
        Markers of fewer pixels do not count.
    min_area : int
        Pieces (4-connected) of the mask with fewer pixels are dropped.
    limits : (float, float), optional
        Slopes with an energy of 1 and of 0; else the least and the largest of each clump.
    """

    size: int = 21
    energy: float = 0.4
    min_marker: int = 10
    min_area: int = 10
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"`size` is {self.size}; it must be odd and at least 3")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"`limits` are {self.limits}; the first must be less than the second")


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


def split_by_gradients(
    horizontal: NDArray[np.float32], vertical: NDArray[np.float32], mask: ArrayLike, rule: EnergyRule
) -> NDArray[np.int32]:
    """Label the parts of a mask that fall apart where one of two maps falls.

    A slope s (of `horizontal` to the right, of `vertical` downwards) has the energy (high - s) / (high - low), cut to
    0..1, for `low` and `high` of the whole mask or of the 8-connected clump; the larger of the two counts. Pixels of
    little energy, their holes filled with pixels of the same clump and opened by three rows of five pixels with one
    more above and below, are markers. Pieces are flooded from them (4-connected) in falling order of the 3 x 3 binomial
    mean of 1 - energy.

    Parameters
    ----------
    horizontal, vertical : (H, W) float32
        Maps; beyond the array, and beyond the mask for the mean, they are 0.
    mask : (H, W) bool or uint8 array_like
        Everything but 0 is foreground.
    rule : EnergyRule

    Returns
    -------
    (H, W) int32
        From 1, in the order of the markers' first pixels; pieces without a marker are 0.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> saw = np.tile(np.concatenate([np.linspace(-1, 1, 15), np.linspace(-1, 1, 15)]), (15, 1)).astype(np.float32)
    >>> split_by_gradients(saw, np.zeros_like(saw), np.ones(saw.shape, bool), EnergyRule(size=5))[7, [3, 25]]
    array([1, 2], dtype=int32)
    """
    across = as_image(horizontal, "horizontal", (np.float32,))
    down = as_image(vertical, "vertical", (np.float32,))
    foreground = as_mask(mask)
    check_shape(down, across.shape, "vertical")
    check_shape(foreground, across.shape, "mask")
    out = np.zeros(across.shape, np.int32)
    if not out.size:
        return out
    inside, heights = np.zeros(out.shape, np.uint8), np.empty(out.shape, np.float32)
    low, high = rule.limits or (0.0, 0.0)
    _gradient_energy.energies(
        foreground, across, down, *sobel_weights(rule.size), low, high, rule.energy, rule.min_area, rule.min_marker,
        inside, heights, out,
    )  # fmt: skip
    _flooding.flood_markers(heights, inside, out, FOUR, False)
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
        _gradient_energy.fill_label_holes(image, owners, label_boxes(image, int(image.max())))
    return image
