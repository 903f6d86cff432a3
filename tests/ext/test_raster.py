"""Polygons to pixels against shapely's point in polygon, and outlines on pixel edges back to their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nuclix.ext.outlines import label_outlines
from nuclix.ext.raster import fill_polygons


def draw(shape: tuple[int, int], geometries: list[shapely.Polygon], values: list[int] | None = None) -> np.ndarray:
    rings, corners, polygons = [0], [], [0]
    for geometry in geometries:
        for ring in (geometry.exterior, *geometry.interiors):
            corners.extend((y, x) for x, y in ring.coords[:-1])
            rings.append(len(corners))
        polygons.append(len(rings) - 1)
    return fill_polygons(shape, corners, rings, polygons, values or list(range(1, len(geometries) + 1)))


def pixel_outlines(labels: np.ndarray) -> dict[int, list[shapely.Polygon]]:
    outlines = {}
    for label in np.unique(labels[labels != 0]):
        boxes = [shapely.box(col, row, col + 1, row + 1) for row, col in np.argwhere(labels == label)]
        union = shapely.union_all(boxes)
        outlines[int(label)] = list(getattr(union, "geoms", [union]))
    return outlines


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_outlines_on_pixel_edges_give_the_labels_back(labels: np.ndarray) -> None:
    outlines = pixel_outlines(labels)
    geometries = [part for parts in outlines.values() for part in parts]
    values = [label for label, parts in outlines.items() for _ in parts]
    np.testing.assert_array_equal(draw(labels.shape, geometries, values), labels)


@given(st.lists(st.tuples(st.floats(-3, 13), st.floats(-3, 11)), min_size=3, max_size=9), st.integers(1, 12))
def test_a_pixel_is_inside_if_its_centre_is(points: list[tuple[float, float]], height: int) -> None:
    shell = shapely.Polygon(points).convex_hull
    if shell.geom_type != "Polygon":
        return
    polygon = shell.difference(shapely.affinity.scale(shell, 0.4, 0.4))
    if polygon.geom_type != "Polygon":
        return
    rows, cols = np.mgrid[:height, :10] + 0.5
    centres = shapely.points(cols, rows)
    near = shapely.distance(polygon.boundary, centres) < 1e-9  # the rule for edges has tests of its own
    expected = shapely.contains(polygon, centres)
    got = draw((height, 10), [polygon]) == 1
    np.testing.assert_array_equal(got[~near], expected[~near])


@given(
    hnp.arrays(np.float64, (12, 2), elements=st.floats(-0.5, 8.5) | st.integers(0, 16).map(lambda n: n / 2)),
)
def test_a_partition_leaves_neither_gap_nor_overlap(points: np.ndarray) -> None:
    # Triangles cut the square without T-junctions, so every shared edge has the same end points on both sides.
    square = [(0.0, 0.0), (8.0, 0.0), (8.0, 8.0), (0.0, 8.0)]
    inner = [tuple(np.clip(point, 0, 8)) for point in points]
    triangles = shapely.delaunay_triangles(shapely.MultiPoint([*square, *inner])).geoms
    covered = [draw((8, 8), [triangle]) for triangle in triangles]
    np.testing.assert_array_equal(np.sum(covered, axis=0), 1)


def test_edges_through_centres_belong_below_and_right() -> None:
    half = shapely.box(0.5, 0.5, 2.5, 1.5)
    np.testing.assert_array_equal(draw((3, 4), [half]), [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_holes_islands_and_the_first_of_two_claims() -> None:
    ring = shapely.Polygon([(0, 0), (5, 0), (5, 5), (0, 5)], [[(1, 1), (4, 1), (4, 4), (1, 4)]])
    island = shapely.box(2, 2, 3, 3)
    expected = np.ones((5, 5), int)
    expected[1:4, 1:4] = 0
    expected[2, 2] = 2
    np.testing.assert_array_equal(draw((5, 5), [ring, island]), expected)
    np.testing.assert_array_equal(draw((1, 3), [shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1)]), [[1, 1, 2]])


def test_what_lies_outside_is_cut_off() -> None:
    huge = shapely.box(-1e12, -1e300, 1e300, 2)
    np.testing.assert_array_equal(draw((3, 2), [huge, shapely.box(50, 50, 60, 60)]), [[1, 1], [1, 1], [0, 0]])


def test_empty_and_bad_input() -> None:
    assert fill_polygons((2, 3), np.zeros((0, 2)), [0], [0], []).tolist() == [[0, 0, 0], [0, 0, 0]]
    square = [[0, 0], [0, 2], [2, 2], [2, 0]]
    with pytest.raises(ValueError, match="finite"):
        fill_polygons((2, 2), [[0, 0], [0, np.nan], [1, 1]], [0, 3], [0, 1], [1])
    for rings, polygons in (([0, 5], [0, 1]), ([0, 4], [0, 2]), ([0, 3, 2, 4], [0, 3]), ([], [0, 1])):
        with pytest.raises(ValueError, match="offsets"):
            fill_polygons((2, 2), square, rings, polygons, [1])
    for value in (0, 2**31):
        with pytest.raises(ValueError, match="labels from 1"):
            fill_polygons((2, 2), square, [0, 4], [0, 1], [value])


def drawn_outlines(labels: np.ndarray) -> np.ndarray:
    """Draw what `label_outlines` traces; objects count from 1 in the order of their first pixels."""
    found = label_outlines(labels)
    polygons = np.append(np.flatnonzero(found.shells), len(found.shells))
    owners = np.searchsorted(found.rings, polygons[:-1], side="right")
    return fill_polygons(labels.shape, found.corners, found.offsets, polygons, owners)


def by_first_pixel(labels: np.ndarray) -> np.ndarray:
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    ranks = np.empty(len(values), int)
    ranks[np.argsort(np.where(values == 0, -1, first))] = np.arange(len(values)) + (0 not in values)
    return ranks[inverse].reshape(labels.shape)


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)))
def test_traced_outlines_give_the_labels_back(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn_outlines(labels), by_first_pixel(labels))


@pytest.mark.shared
def test_traced_outlines_of_real_nuclei_give_the_labels_back(shared: Path) -> None:
    for path in sorted((shared / "data" / "kumar16" / "labels").glob("*.png"))[:4]:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int32)
        np.testing.assert_array_equal(drawn_outlines(labels), by_first_pixel(labels))
