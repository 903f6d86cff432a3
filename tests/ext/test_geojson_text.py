"""GeoJSON text against json, uuid and Python's own rounding."""

from __future__ import annotations

import json
import locale
import math
import re
import uuid
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from identifiers import identifier
from nuclix.ext.geojson_text import FeatureStyle, feature_text, identifiers
from nuclix.ext.outlines import label_outlines, outlines
from rings import gallery, label_images, polygons_of

NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
STYLE = FeatureStyle(1.0, (0.0, 0.0), NAMESPACE.bytes, ("",), ())
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?(e-?[1-9][0-9]*)?")


@dataclass(frozen=True)
class Columns:
    """Objects as the text sees them."""

    first: Any
    rings: Any
    shells: Any
    offsets: Any
    corners: Any
    classes: Any


def objects_of(labels: NDArray[Any], kinds: int = 1, *, smooth: bool = False) -> Columns:
    found = outlines(labels, keep_holes=True) if smooth else label_outlines(labels)
    classes = np.arange(len(found), dtype=np.int32) % kinds
    return Columns(found.first, found.rings, found.shells, found.offsets, found.corners, classes)


def square(row: int = 0, col: int = 0, size: int = 1) -> Columns:
    corners = np.array([(row, col), (row, col + size), (row + size, col + size), (row + size, col)], np.int32)
    shells, classes = np.array([True]), np.zeros(1, np.int32)
    return Columns(np.array([[row, col]]), np.array([0, 1]), shells, np.array([0, 4]), corners, classes)


def without_values(objects: Columns) -> NDArray[np.float64]:
    return np.empty((len(objects.first), 0))


def parsed(text: bytes) -> list[Any]:
    """Read features; numbers stay text."""
    return json.loads(b"[" + text + b"]", parse_float=str, parse_int=str, parse_constant=pytest.fail)


def number_text(value: float) -> str:
    style = replace(STYLE, measurements=("v",))
    return parsed(feature_text(square(), np.array([[value]]), style))[0]["properties"]["measurements"]["v"]


def test_one_feature_to_the_letter() -> None:
    style = FeatureStyle(0.5, (1.25, -2.0), NAMESPACE.bytes, ('"a":1', '"objectType":"detection"'), ("Area µm^2", 'q"'))
    objects = replace(square(3, 4, 3), classes=np.array([1], np.int32))
    named = identifier(NAMESPACE, 3, 4)
    assert feature_text(objects, np.array([[9.0, 0.123456789012]]), style).decode() == (
        f'{{"type":"Feature","id":"{named}","geometry":{{"type":"Polygon","coordinates":'
        "[[[4,0.25],[5.5,0.25],[5.5,1.75],[4,1.75],[4,0.25]]]},"
        '"properties":{"objectType":"detection","measurements":{"Area µm^2":9,"q\\"":0.12346}}}'
    )


@pytest.mark.parametrize("name", gallery())
def test_geometry_of_the_gallery(name: str) -> None:
    labels = gallery()[name]
    objects = objects_of(labels)
    features = parsed(feature_text(objects, without_values(objects), STYLE))
    polygons = polygons_of(label_outlines(labels))
    assert len(features) == len(polygons)
    for feature, parts in zip(features, polygons, strict=True):
        coordinates = [
            [[[str(int(x)), str(int(y))] for x, y in ring.coords] for ring in (part.exterior, *part.interiors)]
            for part in parts
        ]
        one = len(parts) == 1
        expected = {"type": "Polygon" if one else "MultiPolygon", "coordinates": coordinates[0] if one else coordinates}
        assert feature["geometry"] == expected


@given(label_images(), st.floats(0.06, 40), st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), st.booleans())
def test_polygons_stay_valid_at_any_scale(
    labels: NDArray[np.int32], downsample: float, origin: tuple[float, float], smooth: bool
) -> None:
    objects = objects_of(labels, smooth=smooth)
    text = feature_text(objects, without_values(objects), replace(STYLE, downsample=downsample, origin=origin))
    for feature in json.loads(b"[" + text + b"]"):
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid, shapely.is_valid_reason(geometry)


@given(st.integers(-(2**31), 2**31 - 2), st.floats(0.06, 3.9), st.floats(-1e5, 1e5))
def test_coordinates_are_rounded_as_python_rounds(col: int, downsample: float, origin: float) -> None:
    check_coordinate(col, downsample, origin)


@pytest.mark.parametrize("downsample", [0.125, 0.25, 0.375, 0.5, 0.501, 1.0, 4.02, 0.285, 1.005, 2.675])
def test_coordinates_near_ties(downsample: float) -> None:
    for col in range(-60, 60):
        check_coordinate(col, downsample, 0.0)
        check_coordinate(col, downsample, 0.005)


@given(label_images(), st.floats(0.06, 40), st.floats(-1e5, 1e5))
def test_smooth_corners_are_rounded_as_python_rounds(
    labels: NDArray[np.int32], downsample: float, origin: float
) -> None:
    objects = objects_of(labels, smooth=True)
    text = feature_text(objects, without_values(objects), replace(STYLE, downsample=downsample, origin=(0.0, origin)))
    found = [x for f in json.loads(b"[" + text + b"]") for ring in f["geometry"]["coordinates"] for x, _ in ring[:-1]]
    assert found == [round(float(x) * downsample - origin, 2) for x in objects.corners[:, 1]]


def check_coordinate(col: int, downsample: float, origin: float) -> None:
    style = replace(STYLE, downsample=downsample, origin=(0.0, origin))
    text = feature_text(replace(square(0, col), first=np.zeros((1, 2), int)), np.empty((1, 0)), style)
    found = parsed(text)[0]["geometry"]["coordinates"][0][0][0]
    assert NUMBER.fullmatch(found)
    assert Decimal(found) == Decimal(repr(round(col * downsample - origin, 2)))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_have_five_digits(value: float) -> None:
    text = number_text(value)
    assert NUMBER.fullmatch(text)
    assert text != "-0"
    exact, found = Decimal(value), Decimal(text)
    digits = len(found.normalize().as_tuple().digits)
    if float(text) != value and value:
        unit = Decimal(10) ** (exact.adjusted() - 4)
        assert abs(found - exact) <= unit * Decimal("0.50001")  # the digits come out of one or two roundings
        assert digits <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "4.9407e-324"),
        (1.7976931348623157e308, "1.7977e308"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1e-5, "0.00001"),
        (9.9999e-6, "9.9999e-6"),
        (0.0001234567891234, "0.00012346"),
        (0.9999999999, "1"),
        (9.9999999999, "10"),
        (99999.99999999, "100000"),
        (123456789.0, "123456789"),
        (999999999.0, "999999999"),
        (999999999.9, "1000000000"),
        (1234567890.0, "1234600000"),
        (12345678912.0, "12346000000"),
        (123456789012345.0, "123460000000000"),
        (999999999999999.0, "1e15"),
        (1e15, "1e15"),
        (1e22, "1e22"),
        (1.25e-7, "1.25e-7"),
    ],
)
def test_numbers_to_the_letter(value: float, text: str) -> None:
    assert number_text(value) == text


@given(st.tuples(*[st.integers(-(2**31) + 1, 2**31 - 1)] * 2), st.uuids())
def test_identifiers_are_those_of_the_definition(first: tuple[int, int], namespace: uuid.UUID) -> None:
    objects = replace(square(), first=np.array([first]))
    feature = parsed(feature_text(objects, np.empty((1, 0)), replace(STYLE, namespace=namespace.bytes)))[0]
    assert feature["id"] == identifier(namespace, *first)
    assert uuid.UUID(feature["id"]).version == 8
    assert uuid.UUID(feature["id"]).variant == uuid.RFC_4122


def test_slices_join_to_the_whole() -> None:
    objects = objects_of(gallery()["noise 0.5"] * np.arange(1, 46)[:, None], kinds=2)
    values = np.random.default_rng(1).random((len(objects.first), 2))
    style = replace(STYLE, properties=('"k":0', '"k":1'), measurements=("a", "b"))
    text = feature_text(objects, values, style)
    cuts = [0, 1, 7, len(objects.first)]
    parts = [feature_text(objects, values, style, a, b) for a, b in pairwise(cuts)]
    assert b",\n".join(parts) == text
    assert feature_text(objects, values, style, 5, 5) == feature_text(objects, values, style, 10**6) == b""
    features = parsed(text)
    assert len(text.splitlines()) == len(features) == len(objects.first)
    assert [feature["properties"]["k"] for feature in features] == [str(i % 2) for i in range(len(features))]
    assert all(list(feature["properties"]) == ["k", "measurements"] for feature in features)
    found = [[float(x) for x in feature["properties"]["measurements"].values()] for feature in features]
    np.testing.assert_allclose(found, values, rtol=5.01e-5)


def test_nothing() -> None:
    objects = objects_of(np.zeros((3, 3), int))
    assert feature_text(objects, without_values(objects), STYLE) == b""


def test_the_locale_does_not_matter() -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"):
            try:
                locale.setlocale(locale.LC_ALL, name)
                break
            except locale.Error:
                continue
        else:
            pytest.skip("no locale with a decimal comma on this machine")
        assert number_text(1.5) == "1.5"
        check_coordinate(1, 0.501, 0.0)
    finally:
        locale.setlocale(locale.LC_ALL, before)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_values_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="infinite"):
        number_text(value)


def test_a_measurement_that_an_object_does_not_have_is_left_out() -> None:
    style = replace(STYLE, measurements=("a", "b", "c"))
    for values in ((1.0, 2.0, math.nan), (math.nan, 1.0, 2.0), (1.0, math.nan, 2.0), (math.nan,) * 3):
        (feature,) = parsed(feature_text(square(), np.array([values]), style))
        kept = {name: f"{value:g}" for name, value in zip("abc", values, strict=True) if not math.isnan(value)}
        assert feature["properties"]["measurements"] == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": 0.0}, "tell corners apart"),
        ({"downsample": 0.01}, "tell corners apart"),
        ({"downsample": -1.0}, "tell corners apart"),
        ({"downsample": math.nan}, "tell corners apart"),
        ({"downsample": math.inf}, "tell corners apart"),
        ({"origin": (0.0, math.nan)}, "not finite"),
        ({"namespace": b"short"}, "16 bytes"),
    ],
)
def test_styles_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STYLE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.array([1])}, "class"),
        ({"classes": np.array([-1])}, "class"),
        ({"classes": np.array([0, 0])}, "a row an object"),
        ({"first": np.array([0, 0])}, "a row an object"),
        ({"first": np.array([[0, 2**31]])}, "2\\^31"),
        ({"shells": np.array([False])}, "shell"),
        ({"offsets": np.array([0, 3])}, "must run"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feature_text(replace(square(), **change), np.empty((1, 0)), STYLE)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a row an object"):
        feature_text(square(), np.empty((1, 1)), STYLE)
    with pytest.raises(ValueError, match="2\\^33"):
        feature_text(square(0, 2**30), np.empty((1, 0)), replace(STYLE, downsample=9.0))


@given(st.lists(st.tuples(*[st.integers(-(2**31) + 1, 2**31 - 1)] * 2), unique=True, max_size=30), st.uuids())
def test_identifiers_alone(places: list[tuple[int, int]], namespace: uuid.UUID) -> None:
    found = identifiers(np.array(places, np.int64).reshape(-1, 2), namespace.bytes)
    assert found == [identifier(namespace, *place) for place in places]
    assert len(set(found)) == len(places)


def test_identifiers_of_what_does_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        identifiers(np.zeros((1, 2), int), b"short")
    with pytest.raises(ValueError, match="2\\^31"):
        identifiers(np.array([[0, 2**31]]), NAMESPACE.bytes)
