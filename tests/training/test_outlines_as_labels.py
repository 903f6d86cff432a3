"""Outlines as labels: QuPath's GeoJSON and ImageScope's XML give what the label image gives."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import Point, Polygon

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.label_files import find_label_files, read_labels
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.splits import SplitOptions

SHAPE = (40, 50)
SQUARE = [(5.0, 4.0), (15.0, 4.0), (15.0, 12.0), (5.0, 12.0)]  # x, y
TRIANGLE = [(20.0, 10.0), (40.0, 12.0), (28.0, 35.0)]


def geojson(rings: list[list[tuple[float, float]]], kind: str = "annotation") -> bytes:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]},
            "properties": {"objectType": kind},
        }
        for ring in rings
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def xml(rings: list[list[tuple[float, float]]], attribute: str = "") -> bytes:
    regions = "".join(
        f'<Region Id="{number}" {attribute}><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
        + "</Vertices></Region>"
        for number, ring in enumerate(rings, 1)
    )
    return f'<Annotations><Annotation Id="1"><Regions>{regions}</Regions></Annotation></Annotations>'.encode()


def plain(rings: list[list[tuple[float, float]]]) -> np.ndarray:
    """Each pixel has the first ring that its centre lies strictly inside of."""
    out = np.zeros(SHAPE, np.int32)
    for number, ring in reversed(list(enumerate(rings, 1))):
        polygon = Polygon(ring)
        for row in range(SHAPE[0]):
            for col in range(SHAPE[1]):
                if polygon.contains(Point(col + 0.5, row + 0.5)):
                    out[row, col] = number
    return out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", geojson([SQUARE, TRIANGLE])),
        ("a.geojson.gz", gzip.compress(geojson([SQUARE, TRIANGLE], "detection"))),
        ("a.xml", xml([SQUARE, TRIANGLE])),
        ("a.xml", xml([SQUARE, TRIANGLE, [(1.0, 1.0), (2.0, 2.0)]])),  # a ruler
    ],
)
def test_outlines_are_drawn(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert (read_labels(tmp_path / name, SHAPE) == plain([SQUARE, TRIANGLE])).all()
    assert find_label_files(tmp_path) == {"a": tmp_path / name}


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 40)), min_size=3, max_size=9))
def test_both_formats_agree(tmp_path_factory: pytest.TempPathFactory, ring: list[tuple[float, float]]) -> None:
    folder = tmp_path_factory.mktemp("both")
    (folder / "a.geojson").write_bytes(geojson([SQUARE, ring]))
    (folder / "b.xml").write_bytes(xml([SQUARE, ring]))
    try:
        expected = read_labels(folder / "a.geojson", SHAPE)
    except DataError:
        with pytest.raises(DataError):
            read_labels(folder / "b.xml", SHAPE)
        return
    assert (read_labels(folder / "b.xml", SHAPE) == expected).all()


def test_negative_regions_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(xml([SQUARE], 'NegativeROA="1"'))
    assert not read_labels(tmp_path / "a.xml", SHAPE).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<Annotations>", "can't be read as XML"),
        (b"<html/>", "no ImageScope annotation: its root element is html"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "document type"),
        (xml([SQUARE]).replace(b'X="5.0"', b'X="five"'), "region 1 .* vertex without coordinates"),
        (xml([SQUARE]).replace(b'X="5.0"', b""), "region 1 .* vertex without coordinates"),
        (xml([SQUARE]).replace(b'X="5.0"', b'X="nan"'), "not finite"),
        (xml([[(x + 100, y) for x, y in SQUARE]]), "outside the image"),
    ],
)
def test_bad_xml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labels(tmp_path / "a.xml", SHAPE)
    assert "a.xml" in str(caught.value)


def test_a_data_set_may_mix_label_images_and_outlines(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name in ("a.png", "b.tif", "c.png"):
        Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "labels" / "a.geojson").write_bytes(geojson([SQUARE]))
    (tmp_path / "labels" / "b.tif.geojson").write_bytes(geojson([SQUARE]))  # as QuPath names an export
    Image.fromarray(plain([SQUARE]).astype(np.uint8)).save(tmp_path / "labels" / "c.png")
    dataset = load_dataset(tmp_path, SplitOptions(train_on_all=True))
    assert [item.name for item in dataset.train] == ["a", "b", "c"]
    assert all((item.labels == plain([SQUARE])).all() for item in dataset.train)
