"""Nuclei of an attention map: opening and closing, then a watershed of the smoothed Euclidean distance.

Sahasrabudhe et al., "Self-supervised nuclei segmentation in histopathological images using attention", MICCAI 2020,
section 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components
from nuclix.ext.watershed import watershed

EIGHT = 8
TRUNCATE = 4.0  # standard deviations at which the Gaussian ends, as scipy.ndimage has it
UNITS = 1024.0  # of distance to a pixel
MOST = 2.0**20  # units: 1024 px. Sums stay below MOST * WEIGHT^2 = 2^52, which float64 holds exactly
WEIGHT = 2.0**16


@dataclass(frozen=True, slots=True)
class AttentionSplit:
    """Post-processor of the attention recipe.

    The attention above the threshold is opened and closed with a coarse disc, then opened and closed with a fine one;
    beyond the slide there is no attention. Of every clump the Euclidean distance to its outside is smoothed; its maxima
    in a circular window are nuclei, and watershed regions of the inverse distance grow from them.

    A clump is split by itself: neither the Gaussian nor the window looks at another clump, so that each has at least
    one nucleus, wherever blocks were cut. Of equal maxima in a window the first by row, then column, counts.

    Attributes
    ----------
    threshold : float
        Attention of a nucleus' pixel is greater. The paper does not name one; its code has 0.5.
    coarse, fine : int
        Radii of the discs, in px (2 and 1 in the paper); 0 leaves the step out.
    sigma : float
        Standard deviation of the Gaussian, in px (1 in the paper); 0 does not smooth.
    window : int
        Radius of the circular window, in px (7 in the paper).

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    threshold: float = 0.5
    coarse: int = 2
    fine: int = 1
    sigma: float = 1.0
    window: int = 7

    maps: ClassVar[tuple[str, ...]] = ("attention",)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be at least 0 and less than 1, not {self.threshold}")
        for name in ("coarse", "fine", "window"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be a radius of at least 0 px, not {getattr(self, name)}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be a finite number of at least 0 px, not {self.sigma}")

    @property
    def context(self) -> int:
        """Each of the four morphological operations erodes and dilates by a radius."""
        return 4 * (self.coarse + self.fine)

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the attention, opened and closed, exceeds the threshold; from (1, height, width) maps."""
        context = self.context
        mask = np.pad(maps[0] > np.float32(self.threshold), context)
        for radius in (self.coarse, self.fine):
            mask = dilated(eroded(mask, radius), radius)
            mask = eroded(dilated(mask, radius), radius)
        return np.ascontiguousarray(mask[context : mask.shape[0] - context, context : mask.shape[1] - context])

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1, in the order of their maxima."""
        clumps, count = connected_components(mask, EIGHT)
        if not count:
            return clumps
        heights = smoothed_distance(clumps, self.sigma)
        markers = window_maxima(heights, clumps, self.window)
        return watershed(-heights, markers, mask, EIGHT)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the attention."""
        return np.clip(maps[0], np.float32(0), np.float32(1))


def disc(radius: float) -> NDArray[np.int64]:
    """Return the (n, 2) offsets (row, column) of the pixels within `radius` of a pixel, in raster order."""
    reach = math.floor(radius)
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = rows**2 + cols**2 <= radius**2
    return np.stack([rows[inside], cols[inside]], axis=1)


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return a mask grown by a disc; a disc is a stack of rows, so rows are grown first and then laid over each other.

    Outside the mask there is nothing.
    """
    out = mask.copy()
    for row in range(-radius, radius + 1):
        wide = mask
        if half := math.isqrt(radius**2 - row**2):
            wide = mask.copy()
            for col in range(1, half + 1):
                wide[:, col:] |= mask[:, :-col]
                wide[:, :-col] |= mask[:, col:]
        if row == 0:
            out |= wide
        elif row > 0:
            out[row:] |= wide[:-row]
        else:
            out[:row] |= wide[-row:]
    return out


def eroded(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return a mask shrunk by a disc; outside the mask's array counts as inside (the padding keeps that away)."""
    return ~dilated(~mask, radius)


def smoothed_distance(clumps: NDArray[np.int32], sigma: float) -> NDArray[np.float32]:
    """Return every clump's Euclidean distance to its outside, smoothed by a Gaussian as if the clump were alone.

    Distances and weights are rounded to whole numbers of small units, whose sums are exact: they come out the same
    whichever way a pixel is computed, and symmetry gives ties, not rounding noise.

    Parameters
    ----------
    clumps : (H, W) int32
        8-connected components; beyond the array is outside.
    sigma : float
        Of the Gaussian, in px.

    Returns
    -------
    (H, W) float32
        0 outside; inside, multiples of 1 / `UNITS` px.
    """
    from scipy import ndimage as ndi

    reach = int(TRUNCATE * sigma + 0.5)
    padded = np.pad(clumps, reach + 1)
    # The nearest pixel that is not the clump's is never another clump's: 8-connected components do not touch.
    distance = np.minimum(np.rint(ndi.distance_transform_edt(padded > 0) * UNITS), MOST)
    weights = gaussian(sigma, reach)
    total = ndi.correlate1d(ndi.correlate1d(distance, weights, 0, mode="constant"), weights, 1, mode="constant")
    places = np.flatnonzero(_beside_another(padded, reach))
    total.flat[places] = _own_sums(distance.ravel(), padded, places, weights)
    smooth = np.where(padded > 0, np.rint(total / WEIGHT**2) / UNITS, 0).astype(np.float32)
    inner = slice(reach + 1, -reach - 1)
    return np.ascontiguousarray(smooth[inner, inner])


def _beside_another(clumps: NDArray[np.int32], reach: int) -> NDArray[np.bool_]:
    """Return the clumps' pixels in whose square of `reach` px there are other clumps, too."""
    from scipy import ndimage as ndi

    size = 2 * reach + 1
    largest = ndi.maximum_filter(clumps, size, mode="constant")
    ground = np.iinfo(np.int32).max
    smallest = ndi.minimum_filter(np.where(clumps > 0, clumps, ground), size, mode="constant", cval=ground)
    touching: NDArray[np.bool_] = (clumps > 0) & (smallest != largest)
    return touching


def _own_sums(
    distance: NDArray[np.float64], clumps: NDArray[np.int32], places: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return at `places` the weighted sums of `distance` over those pixels that belong to the same clump."""
    owner, width, reach = clumps.ravel(), clumps.shape[1], len(weights) // 2
    total = np.zeros(len(places))
    for row in range(-reach, reach + 1):
        for col in range(-reach, reach + 1):
            there = places + (row * width + col)
            own = owner[there] == owner[places]
            total += weights[row + reach] * weights[col + reach] * np.where(own, distance[there], 0.0)
    return total


def gaussian(sigma: float, reach: int) -> NDArray[np.float64]:
    """Return the weights of a Gaussian at -reach ... reach px, whole numbers that sum to about `WEIGHT`."""
    if reach == 0:
        return np.full(1, WEIGHT)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.rint(weights * (WEIGHT / weights.sum()))


def window_maxima(heights: NDArray[np.float32], clumps: NDArray[np.int32], radius: int) -> NDArray[np.int32]:
    """Mark the pixels that are the highest of their clump within `radius` px; of equals the first in raster order.

    Parameters
    ----------
    heights : (H, W) float32
        Any.
    clumps : (H, W) int32
        Components; 0 is outside.
    radius : int
        Of the circular window.

    Returns
    -------
    (H, W) int32
        0, or the number of the maximum, from 1, in raster order.
    """
    edge = max(radius, 1)
    flat, owner = np.pad(heights, edge).ravel(), np.pad(clumps, edge)
    width, owner = owner.shape[1], owner.ravel()
    places = np.flatnonzero(owner)
    offsets = disc(radius)
    order = np.argsort((offsets**2).sum(axis=1), kind="stable")  # neighbours first: they rule most pixels out
    for row, col in offsets[order]:
        step = int(row * width + col)
        there = places + step
        higher = flat[there] >= flat[places] if step < 0 else flat[there] > flat[places]
        places = places[~(higher & (owner[there] == owner[places]))]
    out = np.zeros(len(flat), np.int32)
    out[places] = np.arange(1, len(places) + 1)
    inner = slice(edge, -edge)
    return np.ascontiguousarray(out.reshape(-1, width)[inner, inner])
