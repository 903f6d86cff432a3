"""Shape measurements against shapely, on pixel outlines and on any polygons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.ext.outlines import label_outlines, outlines
from nuclix.ext.shapes import Shapes, shape_measurements
from rings import gallery, label_images, polygons_of

COLUMNS = (
    "area",
    "perimeter",
    "exterior_area",
    "exterior_perimeter",
    "hull_area",
    "min_bounding_circle_diameter",
    "min_width",
)


@dataclass(frozen=True)
class Columns:
    """Outlines that no label image has."""

    rings: Any
    shells: Any
    offsets: Any
    corners: Any


def one_ring(*corners: tuple[int, int]) -> Columns:
    return Columns(np.array([0, 1]), np.array([True]), np.array([0, len(corners)]), np.array(corners, np.int32))


def min_feret_diameter(geometry: shapely.Geometry) -> float:
    """Try every edge of the hull."""
    hull = geometry.convex_hull
    if hull.area == 0:
        return 0.0
    corners = shapely.get_coordinates(hull)
    corners = corners - corners[0]
    edges = np.diff(corners, axis=0)
    away = corners[None] - corners[:-1, None]
    heights = np.abs(edges[:, None, 0] * away[..., 1] - edges[:, None, 1] * away[..., 0]).max(axis=1)
    return float((heights / np.hypot(*edges.T)).min())


def expected(polygons: list[shapely.Polygon]) -> list[float]:
    geometry = shapely.MultiPolygon(polygons)
    shells = [shapely.Polygon(polygon.exterior) for polygon in polygons]
    return [
        geometry.area,
        geometry.length,
        sum(shell.area for shell in shells),
        sum(shell.length for shell in shells),
        geometry.convex_hull.area,
        2 * shapely.minimum_bounding_radius(geometry),
        min_feret_diameter(geometry),
    ]


def rows(shapes: Shapes) -> NDArray[np.float64]:
    return np.stack([getattr(shapes, name) for name in COLUMNS], axis=1)


def check(outlines: Any) -> None:
    found = rows(shape_measurements(outlines))
    assert found.dtype == np.float64
    for row, polygons in zip(found, polygons_of(outlines), strict=True):
        np.testing.assert_allclose(row, expected(polygons), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in gallery() if name != "every pixel its own"])
def test_gallery(name: str) -> None:
    check(label_outlines(gallery()[name]))


@given(label_images(25))
def test_any_labels(labels: NDArray[np.int32]) -> None:
    check(label_outlines(labels))


@given(label_images(25), st.booleans())
def test_smooth_outlines(labels: NDArray[np.int32], keep_holes: bool) -> None:
    check(outlines(labels, keep_holes=keep_holes))


@given(st.floats(0.3, 25), st.floats(0.3, 25), st.floats(0, 3.2), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_ellipses(major: float, minor: float, angle: float, shift: tuple[float, float]) -> None:
    y, x = np.indices((60, 60)) - 29.5 + np.array(shift)[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    check(label_outlines(np.hypot(along / major, across / minor) < 1))


@given(
    st.lists(st.tuples(st.integers(0, 359), st.integers(1, 2**28)), min_size=3, max_size=40, unique_by=lambda p: p[0]),
    st.tuples(st.integers(-(2**30), 2**30), st.integers(-(2**30), 2**30)),
)
def test_slanted_polygons_of_any_size_anywhere(points: list[tuple[int, int]], middle: tuple[int, int]) -> None:
    """Star-shaped rings: corners by angle around a point, their distance anything."""
    angles = np.deg2rad(sorted(degrees for degrees, _ in points))
    reach = np.array([distance for _, distance in points])
    corners = np.rint(np.stack([np.sin(angles), np.cos(angles)], axis=1) * reach[:, None]).astype(int)
    ring = one_ring(*[(int(y), int(x)) for y, x in corners + middle])
    shell = shapely.Polygon(corners[:, ::-1])
    if not shell.is_valid or shell.convex_hull.area == 0:
        return
    found = rows(shape_measurements(ring))[0]
    # shapely itself loses digits far out in thin slivers; the oracle is given the ring near its middle.
    np.testing.assert_allclose(found, expected([shell]), rtol=1e-9)


def test_one_pixel() -> None:
    found = rows(shape_measurements(label_outlines(np.ones((1, 1), np.uint8))))
    np.testing.assert_allclose(found, [[1, 4, 1, 4, 1, 2**0.5, 1]], rtol=1e-15)


def test_parts_far_apart() -> None:
    """Few corners over many rows are sorted, not put in a bucket a row."""
    squares = [((0, 0), (0, 3), (3, 3), (3, 0)), ((10**6, 5), (10**6, 9), (10**6 + 4, 9), (10**6 + 4, 5))]
    shells = np.array([True, True])
    outlines = Columns(np.array([0, 2]), shells, np.array([0, 4, 8]), np.array(sum(squares, ()), np.int32))
    check(outlines)


def test_a_long_thin_line() -> None:
    check(label_outlines(np.ones((1, 5000), bool)))
    check(label_outlines(np.ones((5000, 1), bool)))


@given(label_images(20), st.integers(1, 3))
def test_turning_changes_nothing(labels: NDArray[np.int32], quarter: int) -> None:
    binary = labels > 0
    shapes = shape_measurements(label_outlines(binary))
    turned = shape_measurements(label_outlines(np.rot90(binary, quarter)))
    np.testing.assert_allclose(rows(turned), rows(shapes), rtol=1e-12)


def test_nothing() -> None:
    shapes = shape_measurements(label_outlines(np.zeros((4, 4), np.int32)))
    assert rows(shapes).shape == (0, 7)


def test_points_on_one_line_have_no_width() -> None:
    found = rows(shape_measurements(one_ring((0, 0), (3, 3), (9, 9))))[0]
    np.testing.assert_allclose(found, [0, 2 * 162**0.5, 0, 2 * 162**0.5, 0, 162**0.5, 0], rtol=1e-12)


def test_points_in_one_place_have_no_size() -> None:
    assert rows(shape_measurements(one_ring((5, 5), (5, 5), (5, 5)))).tolist() == [[0.0] * 7]


def test_read_only_and_other_types_of_columns() -> None:
    outlines = label_outlines(gallery()["noise 0.6"])
    plain = rows(shape_measurements(outlines))
    before = outlines.corners.copy()
    for name in ("rings", "shells", "offsets", "corners"):
        getattr(outlines, name).setflags(write=False)
    np.testing.assert_array_equal(rows(shape_measurements(outlines)), plain)
    other = replace(outlines, rings=outlines.rings.astype(np.int32), corners=np.asfortranarray(outlines.corners))
    np.testing.assert_array_equal(rows(shape_measurements(other)), plain)
    np.testing.assert_array_equal(outlines.corners, before)


SQUARE = one_ring((0, 0), (0, 1), (1, 1), (1, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0, 2])},
        {"offsets": np.array([1, 4])},
        {"offsets": np.array([], np.int64)},
        {"offsets": np.array([0, 5])},
        {"offsets": np.array([0, 2, 4])},
        {"offsets": np.array([0, 6, 4])},
        {"rings": np.array([0, 0, 1])},
        {"rings": np.array([0, 2])},
        {"rings": np.array([[0, 1]])},
        {"shells": np.array([True, False])},
        {"corners": np.zeros((4, 3), np.int32)},
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        shape_measurements(replace(SQUARE, **change))


def test_outlines_too_large_for_exact_arithmetic_are_refused() -> None:
    far = 2**30 - 1
    square = one_ring((0, 0), (0, far), (far, far), (far, 0))
    shapes = shape_measurements(square)
    assert shapes.area[0] == shapes.hull_area[0] == float(far) ** 2
    with pytest.raises(ValueError, match="2\\^30"):
        shape_measurements(one_ring((0, 0), (0, far + 1), (1, far + 1), (1, 0)))
    with pytest.raises(ValueError, match="not finite"):
        shape_measurements(replace(SQUARE, corners=SQUARE.corners * np.float32(2**27)))
    with pytest.raises(ValueError, match="not finite"):
        shape_measurements(replace(SQUARE, corners=SQUARE.corners * np.float32(np.nan)))
