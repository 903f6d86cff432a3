"""Label images of touching nuclei, and the maps that the field's networks would predict for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

SOFTNESS = 1.2  # px: networks blur what they predict


def ellipses(shape: tuple[int, int], seed: int, density: float = 1 / 550) -> NDArray[np.int32]:
    """Ellipses with semi-axes of 5 to 13 px, many of them touching; later ones cover earlier ones."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in range(1, max(2, int(shape[0] * shape[1] * density)) + 1):
        row, col = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        long, short, turn = rng.uniform(7, 13), rng.uniform(5, 8), rng.uniform(0, np.pi)
        top, left = max(0, int(row) - 14), max(0, int(col) - 14)
        rows, cols = np.mgrid[top : min(shape[0], top + 30), left : min(shape[1], left + 30)].astype(float)
        rows, cols = rows - row, cols - col
        along = (rows * np.sin(turn) + cols * np.cos(turn)) / long
        across = (cols * np.sin(turn) - rows * np.cos(turn)) / short
        view = labels[top : top + 30, left : left + 30]
        view[along**2 + across**2 < 1] = number
    return in_one_piece(labels)


def in_one_piece(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Keep what is connected and large enough of every label, numbered from 1."""
    out, count = np.zeros_like(labels), 0
    for number, box in enumerate(ndi.find_objects(labels), 1):
        if box is None:
            continue
        parts, found = ndi.label(labels[box] == number)
        sizes = np.bincount(parts.ravel())[1:]
        if found and sizes.max() >= 30:
            count += 1
            out[box][parts == 1 + sizes.argmax()] = count
    return out


def noisy(maps: NDArray[np.float64], seed: int, noise: float) -> NDArray[np.float32]:
    """Add noise of a few pixels' extent, so that hardly two values are equal."""
    rng = np.random.default_rng(seed)
    rough = np.stack([ndi.gaussian_filter(rng.standard_normal(plane.shape), 1.5) for plane in maps])
    return (maps + noise * rough / max(rough.std(), 1e-9)).astype(np.float32)


def boundary_maps(labels: NDArray[np.int32], seed: int, noise: float = 0.1) -> NDArray[np.float32]:
    """Interior and boundary (two pixels on both sides of an outline) as probabilities."""
    edge = ndi.grey_dilation(labels, size=3) != ndi.grey_erosion(labels, size=3)
    inside = (labels > 0) & ~edge
    soft = np.stack([ndi.gaussian_filter(plane.astype(float), 0.8) for plane in (inside, edge)])
    return np.clip(noisy(soft, seed, noise), 0, 1) / np.maximum(1, soft.sum(axis=0)).astype(np.float32)


def hover_maps(labels: NDArray[np.int32], seed: int, noise: float = 0.05) -> NDArray[np.float32]:
    """Nucleus probability, and in every nucleus the distance from its centre along columns and rows, -1..1."""
    rows, cols = np.indices(labels.shape).astype(float)
    maps = np.zeros((3, *labels.shape))
    maps[0] = ndi.gaussian_filter((labels > 0).astype(float), SOFTNESS / 2)
    for number, box in enumerate(ndi.find_objects(labels), 1):
        inside = labels[box] == number
        for plane, grid in ((maps[1], cols), (maps[2], rows)):
            away = grid[box] - grid[box][inside].mean()
            reach = np.where(away > 0, away[inside].max(), -away[inside].min())
            plane[box][inside] = (away / np.maximum(reach, 1e-9))[inside]
    for k in (1, 2):
        maps[k] = ndi.gaussian_filter(maps[k], SOFTNESS / 2)
    return noisy(maps, seed, noise)


def star_maps(labels: NDArray[np.int32], seed: int, noise: float = 0.02, rays: int = 32) -> NDArray[np.float32]:
    """Object probability (relative distance to the outline) and the distances along rays."""
    maps = np.zeros((1 + rays, *labels.shape))
    for number, box in enumerate(ndi.find_objects(labels), 1):
        inside = np.pad(labels[box] == number, 1)
        deep = ndi.distance_transform_edt(inside)[1:-1, 1:-1]
        maps[0][box] = np.maximum(maps[0][box], deep / deep.max())
    rows, cols = np.nonzero(labels)
    own = labels[rows, cols]
    for k in range(rays):
        angle = 2 * np.pi * k / rays
        walking, steps = np.ones(len(rows), bool), np.zeros(len(rows))
        for step in np.arange(0.5, 40, 0.5):
            y, x = np.rint(rows + step * np.sin(angle)).astype(int), np.rint(cols + step * np.cos(angle)).astype(int)
            there = (y >= 0) & (y < labels.shape[0]) & (x >= 0) & (x < labels.shape[1])
            walking &= there
            walking[walking] = labels[y[walking], x[walking]] == own[walking]
            if not walking.any():
                break
            steps[walking] = step
        maps[1 + k, rows, cols] = steps + 0.5
    out = noisy(maps, seed, noise)
    out[1:] = np.where(labels > 0, out[1:] + noise * 10 * noisy(np.zeros_like(maps[1:]), seed + 1, 1), 0)
    return np.maximum(out, 0)


def flow_maps(labels: NDArray[np.int32], seed: int, noise: float = 0.3) -> NDArray[np.float32]:
    """Logit of the cell probability and five times the unit flows towards each cell's middle: down, right."""
    rows, cols = np.indices(labels.shape).astype(float)
    maps = np.zeros((3, *labels.shape))
    maps[0] = ndi.gaussian_filter((labels > 0).astype(float), 0.5) * 12 - 6
    for number, box in enumerate(ndi.find_objects(labels), 1):
        inside = labels[box] == number
        deep = ndi.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        middle = np.unravel_index(deep.argmax(), deep.shape)
        away = [grid[box] - grid[box][middle] for grid in (rows, cols)]
        length = np.maximum(np.hypot(*away), 1e-9)
        for plane, part in zip(maps[1:], away, strict=True):
            plane[box][inside] = (-5 * part / length * np.minimum(length, 1))[inside]
    return noisy(maps, seed, noise)
