"""Smooth outlines: valid for any label image, true to the area of their pixels, round where nuclei are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.ext.outlines import MAX_SMOOTH_EXTENT, UNITS_PER_PIXEL, Outlines, label_outlines, outlines
from nuclix.ext.overlap import aji, overlap_table
from nuclix.ext.raster import fill_polygons
from rings import gallery, label_images, polygons_of

CLEARANCE = 0.25  # pixels, as ext/_smoothing.pyx promises
EIGHT = np.ones((3, 3), bool)
TOLERANCES = [0.0, 0.3, 0.5, 1.0, 4.0]


def disc(radius: float, centre: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.int32]:
    rows, cols = np.indices((int(2 * radius) + 6,) * 2) - (int(radius) + 2)
    return ((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2).astype(np.int32)


def largest_part(mask: NDArray[np.bool_], *, keep_holes: bool) -> NDArray[np.bool_]:
    """Return the 8-connected part with the largest area when filled, from SciPy."""
    parts, count = ndi.label(mask, EIGHT)
    shells = [ndi.binary_fill_holes(parts == part) for part in range(1, count + 1)]  # background is 4-connected
    best = max(range(count), key=lambda part: (shells[part].sum(), -part))
    return parts == best + 1 if keep_holes else shells[best]


def polygon(found: Outlines, index: int) -> shapely.Polygon:
    return polygons_of(found)[index][0]


def check_clearance(shape: shapely.Polygon) -> None:
    """Edges that share no corner keep their distance; at a corner, no edge folds back."""
    rings = [np.asarray(ring.coords)[:-1] for ring in (shape.exterior, *shape.interiors)]
    ends = [(r, ring[i - 1], ring[i]) for r, ring in enumerate(rings) for i in range(len(ring))]
    lines = shapely.linestrings([edge[1:] for edge in ends])
    for k, (ring, begin, end) in enumerate(ends):
        follows = next(m for m, edge in enumerate(ends) if edge[0] == ring and (edge[1] == end).all())
        assert shapely.distance(lines[k], shapely.Point(ends[follows][2])) >= CLEARANCE
        assert shapely.distance(lines[follows], shapely.Point(begin)) >= CLEARANCE
        for other in range(k + 1, len(ends)):
            if not {tuple(begin), tuple(end)} & {tuple(corner) for corner in ends[other][1:]}:
                assert shapely.distance(lines[k], lines[other]) >= CLEARANCE


def check(labels: NDArray[Any], *, keep_holes: bool = False, tolerance: float = 0.5) -> Outlines:
    found = outlines(labels, tolerance=tolerance, keep_holes=keep_holes)
    pixel = label_outlines(labels)
    for name in ("labels", "first", "pixels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(pixel, name))
    assert found.corners.dtype == np.float32
    assert found.shells.sum() == len(found)
    assert found.shells[found.rings[:-1]].all()
    for label, polygons in zip(found.labels, polygons_of(found), strict=True):
        (shape,) = polygons
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.exterior.is_ccw
        assert not any(hole.is_ccw for hole in shape.interiors)
        part = largest_part(labels == label, keep_holes=keep_holes)
        filled = ndi.binary_fill_holes(part).sum()
        assert shapely.Polygon(shape.exterior).area == pytest.approx(filled, abs=max(0.5, 0.01 * filled))
        if keep_holes:
            holes, count = ndi.label(ndi.binary_fill_holes(part) & ~part)
            areas = sorted(shapely.Polygon(hole).area for hole in shape.interiors)
            expected = sorted(ndi.sum(holes > 0, holes, range(1, count + 1))) if count else []
            assert len(areas) == count
            for area, pixels in zip(areas, expected, strict=True):
                assert area == pytest.approx(pixels, abs=max(0.5, 0.01 * pixels) + 1e-3)
    return found


@pytest.mark.parametrize("name", gallery())
def test_gallery(name: str) -> None:
    for tolerance in TOLERANCES:
        for keep_holes in (False, True):
            check(gallery()[name], keep_holes=keep_holes, tolerance=tolerance)


@given(label_images(20), st.booleans(), st.sampled_from(TOLERANCES))
def test_any_labels(labels: NDArray[np.int32], keep_holes: bool, tolerance: float) -> None:
    check(labels, keep_holes=keep_holes, tolerance=tolerance)


@given(label_images(12), st.booleans(), st.sampled_from(TOLERANCES))
def test_edges_keep_their_distance(labels: NDArray[np.int32], keep_holes: bool, tolerance: float) -> None:
    for (shape,) in polygons_of(check(labels, keep_holes=keep_holes, tolerance=tolerance)):
        check_clearance(shape)


@st.composite
def paths(draw: st.DrawFn) -> NDArray[np.int32]:
    """Return a walk of one to three pixels' width that crosses, touches and encloses itself."""
    steps = draw(
        st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1), st.integers(1, 9)), min_size=1, max_size=25)
    )
    image = np.zeros((64, 64), np.int32)
    row = col = 32
    for dr, dc, length in steps:
        for _ in range(length):
            row, col = min(63, max(0, row + dr)), min(63, max(0, col + dc))
            image[row, col] = 1
    size = draw(st.integers(1, 3))
    return ndi.grey_dilation(image, (size, size))


@given(paths(), st.booleans(), st.sampled_from(TOLERANCES))
def test_thin_winding_paths(labels: NDArray[np.int32], keep_holes: bool, tolerance: float) -> None:
    check(labels, keep_holes=keep_holes, tolerance=tolerance)


@given(label_images(16), st.integers(0, 2**32 - 1), st.booleans())
def test_any_small_displacement_of_corners_keeps_outlines_valid(
    labels: NDArray[np.int32], seed: int, keep_holes: bool
) -> None:
    reach = 0.99 * CLEARANCE / (2 * math.sqrt(2))
    found = outlines(labels, keep_holes=keep_holes)
    rng = np.random.default_rng(seed)
    for (shape,) in polygons_of(found):
        moved = shapely.transform(shape, lambda xy: _displaced(xy, rng, reach))
        assert moved.is_valid, shapely.is_valid_reason(moved)


def _displaced(xy: NDArray[np.float64], rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    """Move every corner by up to `reach` along each axis, repeated ones alike: rings stay closed."""
    corners, index = np.unique(xy, axis=0, return_inverse=True)
    return (corners + rng.choice([-reach, reach], corners.shape))[index.ravel()]


@given(label_images(16), st.floats(0.15, 8), st.integers(0, 200_000), st.integers(0, 200_000))
def test_hundredths_and_float32_keep_outlines_valid(
    labels: NDArray[np.int32], downsample: float, row: int, col: int
) -> None:
    for (shape,) in polygons_of(outlines(labels, keep_holes=True)):
        written = shapely.transform(
            shape, lambda xy: np.round((xy + np.array([col, row])) * downsample, 2).astype(np.float32)
        )
        assert shapely.transform(written, lambda xy: xy.astype(np.float64)).is_valid


@given(label_images(), st.tuples(*[st.integers(0, 9)] * 4))
def test_place_and_other_objects_do_not_matter(labels: NDArray[np.int32], margins: tuple[int, ...]) -> None:
    whole = outlines(np.pad(labels, (margins[:2], margins[2:])))
    for index, label in enumerate(whole.labels):
        alone = outlines((labels == label).astype(np.uint8))
        begin, end = whole.offsets[whole.rings[index]], whole.offsets[whole.rings[index + 1]]
        np.testing.assert_array_equal(whole.corners[begin:end], alone.corners + np.float32([margins[0], margins[2]]))


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.2, 0.7), (0.37, 0.11)])
@pytest.mark.parametrize("radius", [8, 10, 14, 20])
def test_discs_are_round(radius: int, centre: tuple[float, float]) -> None:
    labels = disc(radius, centre)
    found = check(labels)
    shape = polygon(found, 0)
    assert 4 * math.pi * shape.area / shape.length**2 >= (0.95 if radius >= 10 else 0.94)
    assert shape.area == pytest.approx(labels.sum(), rel=0.005)
    assert 8 <= len(found.corners) <= 28
    assert shape.hausdorff_distance(polygon(label_outlines(labels), 0)) < 1


def test_tolerance_thins_corners() -> None:
    counts = [len(outlines(disc(20, (0.2, 0.7)), tolerance=tolerance).corners) for tolerance in (0, 0.25, 0.5, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 3 * counts[2] > 3 * counts[3]


def test_holes_are_filled_and_the_largest_part_is_kept_on_the_pixel_edges_too() -> None:
    labels = np.zeros((12, 20), np.int32)
    labels[1:8, 1:8] = labels[3:6, 12:15] = 5
    labels[3:5, 3:5] = 0
    labels[4, 4] = 5  # touches the hole's corner from inside
    found = outlines(labels, "pixel")
    assert found.corners.tolist() == [[1, 1], [1, 8], [8, 8], [8, 1]]
    assert found.pixels.tolist() == [int((labels == 5).sum())]
    kept = outlines(labels, "pixel", keep_holes=True)
    np.testing.assert_array_equal(kept.corners, label_outlines(labels).corners)
    assert outlines(labels, keep_holes=True).shells.tolist() == [True, False]


@given(label_images())
def test_pixel_edges_filled(labels: NDArray[np.int32]) -> None:
    found = outlines(labels, "pixel")
    for label, (shape,) in zip(found.labels, polygons_of(found), strict=True):
        (parts,) = polygons_of(label_outlines(labels == label))
        assert shape.is_valid
        assert shape.area == max(shapely.Polygon(part.exterior).area for part in parts)


def test_one_pixel_is_a_valid_polygon_of_its_area() -> None:
    shape = polygon(check(np.ones((1, 1), np.uint8)), 0)
    assert shape.area == pytest.approx(1, abs=0.1)


def test_nothing() -> None:
    for shape in ((0, 0), (0, 4), (4, 0), (3, 3)):
        for style in ("smooth", "pixel"):
            found = outlines(np.zeros(shape, np.int32), style)  # type: ignore[arg-type]
            assert len(found) == len(found.corners) == 0
            assert found.rings.tolist() == found.offsets.tolist() == [0]


def test_long_outlines_take_linear_time_and_stay_valid() -> None:
    comb = np.zeros((200, 401), np.uint8)
    comb[:, ::2] = 1
    comb[0] = 1
    assert polygon(outlines(comb), 0).is_valid
    mask = (np.random.default_rng(4).random((250, 250)) < 0.6).astype(np.uint8)
    assert polygon(outlines(mask, keep_holes=True), 0).is_valid


def test_refuses() -> None:
    labels = np.ones((2, 2), np.int32)
    with pytest.raises(ValueError, match="'smooth' or 'pixel'"):
        outlines(labels, "round")  # type: ignore[arg-type]
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance"):
            outlines(labels, tolerance=tolerance)
    with pytest.raises(ValueError, match="too large"):
        outlines(np.zeros((1, MAX_SMOOTH_EXTENT + 1), np.uint8))
    with pytest.raises(ValueError, match="negative"):
        outlines(-labels)
    with pytest.raises(TypeError, match="whole numbers"):
        outlines(labels * 1.0)


@pytest.mark.shared
def test_real_nuclei(shared: Path) -> None:
    from PIL import Image

    path = sorted((shared / "data" / "kumar16" / "labels").iterdir())[0]
    labels = np.asarray(Image.open(path)).astype(np.int32)
    found, pixel = outlines(labels), outlines(labels, "pixel")
    shapes = np.array([polygons[0] for polygons in polygons_of(found)])
    exact = shapely.area(np.array([polygons[0] for polygons in polygons_of(pixel)]))
    large = exact >= 75
    assert shapely.is_valid(shapes).all()
    assert (abs(shapely.area(shapes) / exact - 1)[large] <= 0.01).all()
    assert np.median((4 * math.pi * shapely.area(shapes) / shapely.length(shapes) ** 2)[large]) > 0.75
    assert len(found.corners) < 0.4 * len(pixel.corners)
    assert (found.corners * UNITS_PER_PIXEL % 1 == 0).all()


@pytest.mark.shared
def test_outlines_drawn_again_score_as_their_labels_do(shared: Path) -> None:
    """The outlines of a segmentation, drawn as a label image, lose at most 0.002 AJI against it."""
    from PIL import Image

    truth = np.asarray(Image.open(sorted((shared / "data" / "kumar16" / "labels").iterdir())[0])).astype(np.int32)
    for found in (np.roll(truth, (2, -1), (0, 1)), truth * ndi.binary_erosion(truth > 0, EIGHT)):
        drawn = outlines(found)
        rings = np.arange(len(drawn) + 1)
        again = fill_polygons(truth.shape, drawn.corners, drawn.offsets, rings, rings[1:])
        assert aji(overlap_table(truth, again)) >= aji(overlap_table(truth, found)) - 0.002
