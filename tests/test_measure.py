"""Measurements as QuPath names and defines them; objects of a block, wherever it was cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.engine.errors import UsageError
from nuclix.engine.geometry import Box
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.measure import (
    SHAPE_ONLY,
    MeasurementSettings,
    measure,
    measurement_names,
    measurement_settings,
    objects_of,
    packed_pixels,
    unpacked_pixels,
)
from nuclix.ext.outlines import MAX_SMOOTH_EXTENT, label_outlines
from rings import gallery, label_images, polygons_of, whole

PIXEL = MeasurementSettings(outline="pixel", keep_holes=True)
NAMES = (
    "Area µm^2",
    "Length µm",
    "Circularity",
    "Solidity",
    "Max diameter µm",
    "Min diameter µm",
    "Detection probability",
)


def test_names_are_those_of_qupath_in_its_order() -> None:
    assert measurement_names(0.25, SHAPE_ONLY) == NAMES
    assert all("\u03bc" not in name for name in NAMES)  # the micro sign U+00B5, not the Greek letter
    assert measurement_names(None, SHAPE_ONLY) == tuple(name.replace("\u00b5m", "px") for name in NAMES)


@given(label_images(), st.one_of(st.none(), st.floats(0.05, 5)))
def test_formulas(labels: NDArray[np.int32], um: float | None) -> None:
    outlines = label_outlines(labels)
    sums = outlines.pixels * 0.75
    found = measure(outlines, sums, um)
    assert tuple(found) == measurement_names(um, SHAPE_ONLY)
    scale = um or 1.0
    for index, polygons in enumerate(polygons_of(outlines)):
        geometry = whole(polygons)
        shells = shapely.MultiPolygon([shapely.Polygon(polygon.exterior) for polygon in polygons])
        expected = [
            geometry.area * scale**2,
            geometry.length * scale,
            4 * math.pi * shells.area / shells.length**2 if len(polygons) == 1 else math.nan,
            geometry.area / geometry.convex_hull.area,
            2 * shapely.minimum_bounding_radius(geometry) * scale,
        ]
        values = [column[index] for column in found.values()]
        np.testing.assert_allclose(values[:5], expected, rtol=1e-10)
        assert 0 < values[5] <= values[4]
        assert values[6] == 0.75


@pytest.mark.parametrize("name", gallery())
def test_every_value_is_finite(name: str) -> None:
    labels = gallery()[name]
    scores = np.random.default_rng(0).choice(np.array([np.nan, np.inf, -np.inf, -1, 2, 0.5], np.float32), labels.shape)
    objects = objects_of(labels, scores, Box(0, 0, *labels.shape), 0.25)
    for column in objects.measurements.values():
        assert column.dtype == np.float64
        assert column.shape == (len(objects),)
        assert np.isfinite(column).all()
    probability = objects.measurements["Detection probability"]
    assert ((probability >= 0) & (probability <= 1)).all()


def test_probability_is_the_mean_score() -> None:
    labels = np.array([[1, 1, 0, 2], [1, 0, 0, 2]])
    scores = np.array([[0.25, 0.5, 9, 1.0], [0.75, 9, 9, 0.5]], np.float32)
    objects = objects_of(labels, scores, Box(0, 0, 2, 4), None)
    assert objects.measurements["Detection probability"].tolist() == [0.5, 0.75]


def test_a_block_lies_where_its_box_says() -> None:
    labels = np.zeros((6, 7), np.int32)
    labels[2:4, 3:6] = 5
    objects = objects_of(labels, np.ones(labels.shape, np.float32), Box(1000, 2000, 6, 7), 0.5, PIXEL)
    assert objects.first.tolist() == [[1002, 2003]]
    assert objects.corners.tolist() == [[1002, 2003], [1002, 2006], [1004, 2006], [1004, 2003]]
    assert objects.classes.tolist() == [0]
    assert objects.classes.dtype == np.int32
    assert objects.corners.dtype == np.float32
    assert objects.measurements["Area µm^2"].tolist() == [1.5]


@given(label_images(), st.tuples(*[st.integers(0, 9)] * 4))
def test_where_a_block_was_cut_does_not_matter(labels: NDArray[np.int32], margins: tuple[int, ...]) -> None:
    scores = np.random.default_rng(1).random(labels.shape, np.float32)
    pad = (margins[:2], margins[2:])
    origin = Box(40, 50, *labels.shape)
    shifted = Box(40 - margins[0], 50 - margins[2], 99, 99)
    plain = objects_of(labels, scores, origin, 0.25)
    other = objects_of(np.pad(labels, pad), np.pad(scores, pad, constant_values=1), shifted, 0.25)
    for name in ("first", "pixels", "rings", "shells", "offsets", "corners", "classes"):
        np.testing.assert_array_equal(getattr(other, name), getattr(plain, name))
    for name, column in plain.measurements.items():
        assert other.measurements[name].tobytes() == column.tobytes(), name


def test_coordinates_that_float32_does_not_hold_are_refused() -> None:
    labels = np.ones((2, 2), np.int32)
    scores = np.ones((2, 2), np.float32)
    limit = MAX_SMOOTH_EXTENT - 1  # an outline may reach a little over its pixels
    assert objects_of(labels, scores, Box(limit - 2, 0, 2, 2), None, PIXEL).corners.max() == limit
    far = objects_of(labels, scores, Box(limit - 2, 0, 2, 2), None)
    near = objects_of(labels, scores, Box(0, 0, 2, 2), None)
    np.testing.assert_array_equal(far.corners - np.float32([limit - 2, 0]), near.corners)
    for box in (Box(limit - 1, 0, 2, 2), Box(0, limit, 2, 2), Box(-limit - 1, 0, 2, 2)):
        with pytest.raises(ValueError, match="beyond"):
            objects_of(labels, scores, box, None)


def test_pixel_outlines_of_several_parts_have_no_circularity() -> None:
    labels = np.array([[1, 0, 1, 0, 2]])
    objects = objects_of(labels, np.ones(labels.shape, np.float32), Box(0, 0, 1, 5), None, PIXEL)
    circularity = objects.measurements["Circularity"]
    assert np.isnan(circularity[0])
    assert circularity[1] == pytest.approx(math.pi / 4)
    smooth = objects_of(labels, np.ones(labels.shape, np.float32), Box(0, 0, 1, 5), None)
    assert np.isfinite(smooth.measurements["Circularity"]).all()
    assert np.diff(smooth.rings).tolist() == [1, 1]


@pytest.mark.parametrize("families", [("shape",), ("shape", "stain"), ("stain-od",), ("stain", "stain-od"), ()])
def test_families_and_names(families: tuple[str, ...]) -> None:
    settings = MeasurementSettings(families=families)
    rgb = np.full((1, 3, 3), (150, 90, 160), np.uint8)
    labels = np.array([[1, 0, 2]])
    objects = objects_of(labels, np.ones((1, 3), np.float32), Box(0, 0, 1, 3), 0.5, settings, rgb)
    assert tuple(objects.measurements) == measurement_names(0.5, settings)
    assert "Detection probability" in objects.measurements
    if "stain" in families:
        np.testing.assert_allclose(objects.measurements["Hematoxylin: Median"], 0.28517, atol=1e-5)
        np.testing.assert_allclose(objects.measurements["Eosin: Max"], 0.27857, atol=1e-5)
    if "stain-od" in families:
        np.testing.assert_allclose(objects.measurements["Nucleus: Hematoxylin OD sum"], 0.28517, atol=1e-5)
        assert objects.measurements["Nucleus: Eosin OD range"].tolist() == [0, 0]
    if settings.needs_pixels:
        with pytest.raises(ValueError, match="pixels"):
            objects_of(labels, np.ones((1, 3), np.float32), Box(0, 0, 1, 3), 0.5, settings)


def test_packed_pixels_are_exact() -> None:
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (33, 47, 3), dtype=np.uint8)
    rgb[0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 1]]
    np.testing.assert_array_equal(unpacked_pixels(packed_pixels(rgb)), rgb)
    np.testing.assert_array_equal(unpacked_pixels(packed_pixels(rgb)[3:20, 5:9]), rgb[3:20, 5:9])


@pytest.mark.parametrize("stains", [("1", "2"), ("a",) * 6, ("0.6", "0.7", "0.3") * 2, ("nan",) * 6])
def test_stain_vectors_that_make_no_sense_are_refused(stains: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--stains"):
        measurement_settings(RunConfig(stains=stains))


def test_settings_follow_the_options() -> None:
    config = RunConfig(
        outline="pixel", simplify=0.25, keep_holes=True, measurements=("stain",),
        stains=("0.6", "0.7", "0.3", "0.2", "0.8", "0.5"),
    )  # fmt: skip
    expected = MeasurementSettings("pixel", 0.25, True, ("stain",), (0.6, 0.7, 0.3, 0.2, 0.8, 0.5))
    assert measurement_settings(config) == expected
