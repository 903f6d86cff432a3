"""The field's post-processing as its papers and programs describe it, written again with NumPy, SciPy and scikit-image.

Each works on a whole map. Where nuclix' rule differs on purpose, so that a clump is split by itself, an argument
switches between the published rule and nuclix'.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.draw import polygon
from skimage.morphology import disk
from skimage.segmentation import watershed

EIGHT = np.ones((3, 3), bool)
ELEMENT = disk(2) | np.pad(np.ones((3, 5), np.uint8), ((1, 1), (0, 0)))  # the "ellipse" of 5 x 5 px


def without_few(labels: NDArray[np.int32], smallest: int) -> NDArray[np.int32]:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= smallest, labels, 0)


# ---- interior and boundary ----


def boundary(maps: NDArray[np.float32]) -> NDArray[np.int32]:
    """The most likely of three classes; interiors grow over boundaries (Caicedo et al. 2019)."""
    ground = 1 - maps[0] - maps[1]
    likely = np.stack([ground, maps[0], maps[1]]).argmax(axis=0)
    markers = ndi.label(likely == 1)[0]
    return watershed(maps[1] - maps[0], markers, mask=likely > 0)


def nucleus_less_border(maps: NDArray[np.float32]) -> NDArray[np.int32]:
    markers = ndi.label((maps[0] > 0.5) & (maps[0] - maps[1] > 0.5))[0]
    return watershed(maps[1] - maps[0], markers, mask=maps[0] > 0.5)


# ---- HoVer-Net ----


def sobel(image: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float64]:
    """A Sobel filter as OpenCV builds its weights: convolutions with (1, 1), one with (-1, 1)."""
    smooth, slope = np.ones(1), np.array([-1.0, 1.0])
    for _ in range(size - 1):
        smooth = np.convolve(smooth, [1, 1])
    for _ in range(size - 2):
        slope = np.convolve(slope, [1, 1])
    once = ndi.correlate1d(image.astype(float), slope, axis, mode="constant")
    return ndi.correlate1d(once, smooth, 1 - axis, mode="constant")


def below_highest(slope: NDArray[np.float64], clumps: NDArray[np.int32] | None) -> NDArray[np.float64]:
    """Scale a slope to 0 (highest) .. 1 (lowest), over the tile, or over each clump."""
    if clumps is None:
        return (slope.max() - slope) / (slope.max() - slope.min())
    out = np.zeros(slope.shape)
    for number, box in enumerate(ndi.find_objects(clumps), 1):
        if box is None:
            continue
        inside = clumps[box] == number
        own = slope[box][inside]
        if own.max() > own.min():
            out[box][inside] = (own.max() - own) / (own.max() - own.min())
    return out


def hovernet(maps: NDArray[np.float32], size: int = 21, by_tile: bool = True) -> NDArray[np.int32]:
    pieces = without_few(ndi.label(maps[0] >= 0.5)[0], 10)
    mask = pieces > 0
    clumps = None if by_tile else np.where(mask, ndi.label(maps[0] >= 0.5, EIGHT)[0], 0)
    energy = np.maximum(below_highest(sobel(maps[1], size, 1), clumps), below_highest(sobel(maps[2], size, 0), clumps))
    energy = np.where(mask, energy, 0)
    calm = np.where(mask, 1 - energy, 0)
    for axis in (0, 1):
        calm = ndi.correlate1d(calm, [0.25, 0.5, 0.25], axis, mode="constant")
    inside = ndi.binary_opening(ndi.binary_fill_holes(mask & (energy < 0.4)), ELEMENT)
    markers = without_few(ndi.label(inside)[0], 10)
    return watershed(-calm, markers, mask=mask)


# ---- StarDist ----


def corners(row: int, col: int, distances: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angles = 2 * np.pi * np.arange(len(distances)) / len(distances)
    return row + distances * np.sin(angles), col + distances * np.cos(angles)


def polygon_mask(row: int, col: int, distances: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside a polygon, in a frame with a margin of 64 px so that nothing is cut off."""
    y, x = corners(row, col, distances.astype(float))
    out = np.zeros((shape[0] + 128, shape[1] + 128), bool)
    out[polygon(y + 64, x + 64, out.shape)] = True
    return out


def stardist(
    maps: NDArray[np.float32], threshold: float = 0.5, overlap: float = 0.4, by_area: bool = False
) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """Labels and the centres taken; overlaps of pixels, or of areas by a library for polygons."""
    places = [tuple(place) for place in np.argwhere(maps[0] > threshold)]
    places.sort(key=lambda place: (-maps[(0, *place)], place))
    taken: list[tuple[int, int]] = []
    shapes = []
    labels = np.zeros(maps.shape[1:], np.int32)
    for place in places:
        shape = _shape_of(maps, place, by_area)
        near = [k for k, other in enumerate(taken) if max(abs(np.subtract(place, other))) < 80]
        if any(_shared(shape, shapes[k]) > overlap for k in near):
            continue
        taken.append((int(place[0]), int(place[1])))
        shapes.append(shape)
        inside = polygon_mask(*place, maps[(slice(1, None), *place)], labels.shape)[64:-64, 64:-64]
        labels[inside & (labels == 0)] = len(taken)
    return labels, taken


def _shape_of(maps, place, by_area):
    if by_area:
        from shapely import Polygon

        y, x = corners(*place, maps[(slice(1, None), *place)].astype(float))
        return Polygon(list(zip(x, y, strict=True)))
    return polygon_mask(*place, maps[(slice(1, None), *place)], maps.shape[1:])


def _shared(one, other) -> float:
    if isinstance(one, np.ndarray):
        return (one & other).sum() / min(one.sum(), other.sum())
    return one.intersection(other).area / min(one.area, other.area)


# ---- Cellpose ----


def read_between(flows: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([ndi.map_coordinates(plane, at, order=1, mode="nearest") for plane in flows])


def cellpose(maps: NDArray[np.float32], steps: int = 200, flow_threshold: float = 0.4) -> NDArray[np.int32]:
    inside = maps[0] > 0
    flows = np.where(inside, maps[1:], 0).astype(float) / 5
    start = np.argwhere(inside).T
    at = start.astype(float)
    for _ in range(steps):
        at = at + read_between(flows, at)
        for axis in (0, 1):
            at[axis] = at[axis].clip(0, inside.shape[axis] - 1)
    ends = at.astype(int)
    labels = np.zeros(inside.shape, np.int32)
    labels[tuple(start)] = sinks(ends, inside.shape)[tuple(ends + 20)]
    if flow_threshold:
        for number, error in errors(labels, flows):
            if error > flow_threshold:
                labels[labels == number] = 0
    labels = without_few(labels, 15)
    for number in np.unique(labels[labels > 0]):
        box = ndi.find_objects((labels == number).astype(int))[0]
        labels[box][ndi.binary_fill_holes(labels[box] == number)] = number
    return labels


def sinks(ends: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Number the places where pixels gather, in a frame with a margin of 20 px; the largest sink wins."""
    counts = np.zeros((shape[0] + 40, shape[1] + 40), int)
    np.add.at(counts, tuple(ends + 20), 1)
    seeds = np.argwhere((counts == ndi.maximum_filter(counts, 5)) & (counts > 10))
    seeds = seeds[np.argsort(counts[tuple(seeds.T)], kind="stable")]
    out = np.zeros(counts.shape, np.int32)
    for number, seed in enumerate(seeds, 1):  # rising: the largest is painted last
        region = np.zeros(counts.shape, bool)
        region[tuple(seed)] = True
        out[ndi.binary_dilation(region, EIGHT, iterations=5, mask=counts > 2) | region] = number
    return out


def errors(labels: NDArray[np.int32], flows: NDArray[np.float64]) -> Iterator[tuple[int, float]]:
    """Mean squared difference between predicted flows and those of heat from each mask's middle."""
    for number, box in enumerate(ndi.find_objects(labels), 1):
        if box is None:
            continue
        inside = np.pad(labels[box] == number, 1)
        rows, cols = np.nonzero(inside)
        nearest = ((rows - np.median(rows)) ** 2 + (cols - np.median(cols)) ** 2).argmin()
        heat = np.zeros(inside.shape)
        for _ in range(2 * (np.ptp(rows) + np.ptp(cols))):
            heat[rows[nearest], cols[nearest]] += 1
            heat = np.where(inside, ndi.uniform_filter(heat, 3, mode="constant"), 0)
        heat = np.log1p(np.pad(heat, 1))
        slope = np.stack([heat[2:, 1:-1] - heat[:-2, 1:-1], heat[1:-1, 2:] - heat[1:-1, :-2]])
        slope /= 1e-20 + np.sqrt((slope**2).sum(axis=0))
        wrong = ((slope[:, 1:-1, 1:-1] - flows[(slice(None), *box)]) ** 2).sum(axis=0)
        yield number, wrong[inside[1:-1, 1:-1]].mean()
