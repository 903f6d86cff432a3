"""What the kernels compute, written as their definitions read: slow, for small arrays only."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

import numpy as np

MOST = 65_535
EDGES = ((-1, 0), (0, -1), (0, 1), (1, 0))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def neighbours(pixel, shape, connectivity) -> Iterator[tuple[int, int]]:
    for step in EDGES if connectivity == 4 else EDGES + CORNERS:
        row, col = pixel[0] + step[0], pixel[1] + step[1]
        if 0 <= row < shape[0] and 0 <= col < shape[1]:
            yield row, col


def reach(start, inside, connectivity):
    """The pixels of the mask `inside` that paths from `start` reach."""
    seen, stack = {start}, [start]
    while stack:
        for near in neighbours(stack.pop(), inside.shape, connectivity):
            if inside[near] and near not in seen:
                seen.add(near)
                stack.append(near)
    return seen


def instance_distance(labels):
    """Chessboard distance of every instance's pixels to the nearest pixel of another label."""
    rows, cols = np.indices(labels.shape)
    most = min(MOST, np.iinfo(labels.dtype).max)
    out = np.zeros_like(labels)
    for pixel in zip(*np.nonzero(labels), strict=True):
        other = labels != labels[pixel]
        distances = np.maximum(abs(rows - pixel[0]), abs(cols - pixel[1]))[other]
        out[pixel] = min(distances.min(initial=most), most)
    return out


def chessboard_distance(mask):
    return instance_distance((mask != 0).astype(np.uint16))


def connected_components(mask, connectivity):
    labels, count = np.zeros(mask.shape, np.int32), 0
    for pixel in zip(*np.nonzero(mask), strict=True):
        if not labels[pixel]:
            count += 1
            for member in reach(pixel, mask != 0, connectivity):
                labels[member] = count
    return labels, count


def dynamics(image, floor, connectivity):
    """Yield (plateau, dynamics) of every maximum of max(image, floor) above the floor, in raster order."""
    above = image > floor if floor is not None else ~np.isnan(image)
    pixels = sorted(zip(*np.nonzero(above), strict=True), key=lambda pixel: (-image[pixel], pixel))
    turn = {pixel: index for index, pixel in enumerate(pixels)}
    for pixel in sorted(pixels):
        plateau = reach(pixel, image == image[pixel], connectivity)
        rim = {near for member in plateau for near in neighbours(member, image.shape, connectivity)} - plateau
        if pixel != min(plateau) or any(image[near] > image[pixel] and above[near] for near in rim):
            continue
        rise = math.inf if floor is None else float(image[pixel]) - float(np.float32(floor))
        flooded = np.zeros(image.shape, bool)
        for lowest in pixels:
            flooded[lowest] = True
            if flooded[pixel] and any(turn[member] < turn[pixel] for member in reach(pixel, flooded, connectivity)):
                rise = float(image[pixel]) - float(image[lowest])
                break
        yield plateau, rise


def h_maxima(image, h, floor, connectivity):
    out, count = np.zeros(image.shape, np.int32), 0
    for plateau, rise in dynamics(image.astype(np.float32), floor, connectivity):
        if rise > h:
            count += 1
            for pixel in plateau:
                out[pixel] = count
    return out


def watershed(image, markers, mask, connectivity):
    """Flood low values first; the queue is ordered by (value, row, column)."""
    inside = ~np.isnan(image) if mask is None else ~np.isnan(image) & (mask != 0)
    out = np.where(inside, markers, 0).astype(np.int32)
    queue = [(image[pixel], pixel) for pixel in zip(*np.nonzero(out), strict=True)]
    heapq.heapify(queue)
    while queue:
        _, pixel = heapq.heappop(queue)
        for near in neighbours(pixel, image.shape, connectivity):
            if inside[near] and not out[near]:
                out[near] = out[pixel]
                heapq.heappush(queue, (image[near], near))
    return out


def dynamics_watershed(image, h, floor, connectivity, mask=None, min_area=0):
    """The maxima, then their regions, then without the small ones."""
    inside = image > np.float32(floor)
    if mask is not None:
        inside &= mask != 0
    inner = np.where(inside, image, np.float32(floor))
    regions = watershed(-inner, h_maxima(inner, h, floor, connectivity), inside, connectivity)
    kept = [label for label in range(1, regions.max(initial=0) + 1) if (regions == label).sum() >= min_area]
    out = np.zeros_like(regions)
    for number, label in enumerate(kept, 1):
        out[regions == label] = number
    return out
