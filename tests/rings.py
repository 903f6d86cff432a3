"""Outlines as shapely sees them, and label images that are hard on outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray


def polygons_of(outlines: Any) -> list[list[shapely.Polygon]]:
    """Return each object's polygons, x being the column."""
    objects = []
    for begin, end in zip(outlines.rings[:-1], outlines.rings[1:], strict=True):
        polygons: list[tuple[Any, list[Any]]] = []
        for ring in range(begin, end):
            corners = outlines.corners[outlines.offsets[ring] : outlines.offsets[ring + 1], ::-1]
            if outlines.shells[ring]:
                polygons.append((corners, []))
            else:
                polygons[-1][1].append(corners)
        objects.append([shapely.Polygon(shell, holes) for shell, holes in polygons])
    return objects


def whole(polygons: list[shapely.Polygon]) -> shapely.Polygon | shapely.MultiPolygon:
    """Join an object's polygons as GeoJSON does: one stays a polygon."""
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def label_images(most: int = 14) -> st.SearchStrategy[NDArray[np.int32]]:
    """Return small images of any labels, connected or not."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=most)
    return st.integers(1, 4).flatmap(lambda top: hnp.arrays(np.int32, shapes, elements=st.integers(0, top)))


def spiral(size: int) -> NDArray[np.int32]:
    """Return a path of one pixel that winds inwards with a gap of one."""
    image = np.zeros((size, size), np.int32)
    row, col, step_row, step_col = 0, -1, 0, 1
    for length in [size, *(n for n in range(size - 1, 0, -2) for _ in range(2))]:
        for _ in range(length):
            row, col = row + step_row, col + step_col
            image[row, col] = 1
        step_row, step_col = step_col, -step_row
    return image


def gallery() -> dict[str, NDArray[np.int32]]:
    """Return named images, each hard in its own way."""
    rows, cols = np.indices((33, 37))
    radius = np.maximum(abs(rows - 16), abs(cols - 18))
    rng = np.random.default_rng(5)
    images = {
        "one pixel": np.ones((1, 1)),
        "background": np.zeros((7, 9)),
        "no rows": np.zeros((0, 5)),
        "no columns": np.zeros((5, 0)),
        "no pixels": np.zeros((0, 0)),
        "full": np.ones((7, 9)),
        "row": rng.integers(0, 3, (1, 50)),
        "column": rng.integers(0, 3, (50, 1)),
        "checkerboard": (rows + cols) % 2,
        "two checkerboards": (rows + cols) % 2 + 1,
        "diagonals": (rows + cols) % 3,
        "rows": rows % 2,
        "columns": cols % 2,
        "comb": (cols % 2 == 0) | (rows == 32),
        "spiral": spiral(41),
        "frame": (rows == 0) | (cols == 0) | (rows == 32) | (cols == 36),
        "nested islands of one label": radius % 2,
        "nested islands of many labels": radius + 1,
        "nested islands, holes between": (radius % 3 > 0) * (radius + 1),
        "one hole": ~((rows == 11) & (cols == 30)),
        "corner pixels": np.isin(rows, (0, 32)) & np.isin(cols, (0, 36)),
        "holes in a diagonal": ~((rows == cols) & (rows > 2) & (rows < 30)),
        "cross of holes": ~(((rows == cols) | (rows + cols == 32)) & (rows > 2) & (rows < 30)),
        "every pixel its own": rows * 37 + cols + 1,
    }
    for share in (0.1, 0.5, 0.6, 0.7, 0.9):
        images[f"noise {share}"] = rng.random((45, 67)) < share
    return {name: image.astype(np.int32) for name, image in images.items()}
