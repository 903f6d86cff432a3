"""Star-convex polygons on the pixel grid: the pixels that they cover, and non-maximum suppression among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _star_polygons
from nuclix.ext._check import as_labels, as_mask

MIN_DISTANCE = 1e-3  # px: a polygon always holds the pixel of its centre


@dataclass(frozen=True, slots=True)
class Stars:
    """N star-convex polygons.

    A pixel (row, col) belongs to polygon i if its centre lies inside the corners
    (rows[i] + d sin a, cols[i] + d cos a) for the distances d along rays at the angles a = 2 pi k / rays.

    Attributes
    ----------
    rows, cols : (N,) int32
        Centres, in raster order.
    distances : (N, rays) float32
        Along each ray, in px; positive and finite.
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    distances: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


def stars_at(mask: NDArray[np.bool_], distances: NDArray[np.float32], max_distance: float) -> Stars:
    """Collect the polygons whose centres are the pixels of a mask.

    Parameters
    ----------
    mask : (H, W) bool
        Centres.
    distances : (rays, H, W) float32
        Distances from each pixel to the outline, in px, at least 3 rays; any memory order.
    max_distance : float
        Longer distances are cut to it; a distance that is not a number, or shorter than `MIN_DISTANCE`, becomes
        `MIN_DISTANCE`.

    Returns
    -------
    Stars
        In raster order.

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than 3 rays.
    """
    if distances.ndim != 3 or distances.shape[1:] != mask.shape or len(distances) < 3:
        raise ValueError(
            f"`distances` has shape {distances.shape}; it must be at least 3 rays for each of the {mask.shape} pixels"
        )
    centres = as_mask(mask)
    count = int(np.count_nonzero(centres))
    rows, cols = np.empty(count, np.int32), np.empty(count, np.int32)
    values = np.empty((count, len(distances)), np.float32)
    if count:
        high = max(max_distance, MIN_DISTANCE)
        _star_polygons.gather(distances, centres, MIN_DISTANCE, high, rows, cols, values)
    return Stars(rows, cols, values)


def cover_stars(stars: Stars, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of the pixels that lie in any of the polygons.

    Parameters
    ----------
    stars : Stars
        Polygons whose centres lie in the array; they may reach over its edges.
    shape : (int, int)
        Height and width of the array.

    Returns
    -------
    (H, W) bool
    """
    out = np.zeros(shape, bool)
    if len(stars):
        _check_centres(stars, shape)
        _star_polygons.cover(stars.distances, stars.rows, stars.cols, out.view(np.uint8))
    return out


def select_stars(
    stars: Stars, scores: NDArray[np.float32], clumps: NDArray[np.int32], overlap: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Keep the most probable of overlapping polygons and draw them (greedy non-maximum suppression).

    Polygons are taken from the highest score to the lowest (equal ones in raster order). One that was taken drops all
    others of its clump that share more than `overlap` of the smaller one's pixels with it. Polygons are drawn inside
    the clump of their centre; a pixel of several belongs to the one of the highest score.

    Parameters
    ----------
    stars : Stars
        N candidates.
    scores : (N,) float32
        Their probabilities; finite.
    clumps : (H, W) int32
        Labels of clumps; 0 is background. Every centre lies in a clump.
    overlap : float
        Share of the smaller polygon, 0..1.

    Returns
    -------
    labels : (H, W) int32
        0, or k for the k-th polygon taken; a polygon whose pixels all belong to others has none.
    taken : (K,) int32
        The candidate of each label.

    Raises
    ------
    ValueError
        If there is not one score for each candidate, or a centre lies outside the array or the clumps.
    """
    image = np.ascontiguousarray(as_labels(clumps, "clumps"), np.int32)
    out = np.zeros(image.shape, np.int32)
    if len(scores) != len(stars):
        raise ValueError(f"{len(scores)} scores for {len(stars)} polygons")
    if not len(stars):
        return out, np.zeros(0, np.int32)
    _check_centres(stars, image.shape)
    owners = image[stars.rows, stars.cols]
    if not owners.all():
        raise ValueError("every polygon's centre must lie in a clump")
    order = np.argsort(-scores, kind="stable")
    taken = np.empty(len(stars), np.int32)
    count = _star_polygons.select(
        stars.distances, stars.rows, stars.cols, order, owners, float(overlap), image, out, taken
    )
    return out, taken[:count].copy()


def _check_centres(stars: Stars, shape: tuple[int, ...]) -> None:
    inside = (stars.rows >= 0) & (stars.rows < shape[0]) & (stars.cols >= 0) & (stars.cols < shape[1])
    if not inside.all():
        raise ValueError(f"every polygon's centre must lie in the array of {shape}")
