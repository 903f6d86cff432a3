"""Shapes that break kernels: one list of masks and one of maps, with names."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi


def spiral(size, gap=2):
    """A path of one pixel that winds inwards."""
    out = np.zeros((size, size), bool)
    top, left, bottom, right = 0, 0, size - 1, size - 1
    while top <= bottom and left <= right:
        out[top, left : right + 1] = True
        out[top : bottom + 1, right] = True
        out[bottom, left : right + 1] = bottom > top or out[bottom, left : right + 1]
        out[top + gap : bottom + 1, left] = True
        if top + gap <= bottom:
            out[top + gap, left : min(left + gap, right) + 1] = True
        top, left, bottom, right = top + gap, left + gap, bottom - gap, right - gap
    return out


def masks():
    rng = np.random.default_rng(7)
    rows, cols = np.indices((33, 37))
    named = {
        "empty": np.zeros((20, 30), bool),
        "full": np.ones((20, 30), bool),
        "one hole": ~((rows == 11) & (cols == 30)),
        "one pixel": (rows == 11) & (cols == 30),
        "checkerboard": (rows + cols) % 2 == 0,
        "rows": rows % 2 == 0,
        "columns": cols % 2 == 1,
        "diagonals": (rows + cols) % 3 == 0,
        "staircase": (cols - rows // 2) % 7 < 3,
        "comb": (cols % 2 == 0) | (rows == 32),
        "spiral": spiral(41),
        "wide spiral": spiral(64, 6),
        "frame": (rows == 0) | (cols == 0) | (rows == 32) | (cols == 36),
        "row": rng.random((1, 300)) < 0.9,
        "column": rng.random((300, 1)) < 0.9,
        "pixel": np.ones((1, 1), bool),
        "no rows": np.zeros((0, 5), bool),
        "no columns": np.zeros((5, 0), bool),
        "disc": (rows - 16) ** 2 + (cols - 18) ** 2 < 200,
    }
    for share in (0.05, 0.4, 0.6, 0.95, 0.999):
        named[f"noise {share}"] = rng.random((45, 67)) < share
    named["blobs"] = ndi.gaussian_filter(rng.standard_normal((120, 90)), 4) > 0
    return named


def heights():
    """Float32 maps with plateaus, ties, ridges and slopes; the floor to use is 0."""
    rng = np.random.default_rng(11)
    named = {}
    for name, mask in masks().items():
        named[f"{name}: flat"] = mask.astype(np.float32)
        if mask.size:
            distance = ndi.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
            named[f"{name}: distance"] = distance.astype(np.float32)
        named[f"{name}: few levels"] = (mask * rng.integers(1, 5, mask.shape)).astype(np.float32)
    rows, cols = np.indices((40, 50))
    named["ramp"] = (rows * 50 + cols + 1).astype(np.float32)
    named["steps"] = (1 + (rows // 5) * 3 + cols // 7).astype(np.float32)
    named["saddles"] = (2 + np.sin(rows / 3) + np.cos(cols / 4)).astype(np.float32)
    named["mirror"] = np.abs(cols - 24.5).astype(np.float32) + 1
    named["signed zeros"] = np.where((rows + cols) % 2 == 0, 0.0, -0.0).astype(np.float32)
    named["infinite"] = np.where((rows // 4 + cols // 4) % 2 == 0, np.inf, 1.0).astype(np.float32)
    named["not numbers"] = np.where(rng.random((40, 50)) < 0.2, np.nan, rng.integers(0, 4, (40, 50))).astype(np.float32)
    named["negative"] = rng.normal(-3, 2, (40, 50)).astype(np.float32)
    named["tiny"] = (rng.integers(0, 5, (40, 50)) * np.float32(1e-45)).astype(np.float32)
    return named


def predicted(shape, seed=0, smoothing=3.0):
    """A smooth random map without ties: its values are shuffled ranks."""
    rng = np.random.default_rng(seed)
    smooth = ndi.gaussian_filter(rng.standard_normal(shape), smoothing).ravel()
    ranks = np.empty(smooth.size)
    ranks[np.argsort(smooth)] = np.arange(smooth.size)
    return (ranks / smooth.size * 10).astype(np.float32).reshape(shape)
