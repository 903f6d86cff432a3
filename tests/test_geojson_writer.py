"""The GeoJSON writer: the conformance suite, what QuPath demands of a file, and disks that fail."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from identifiers import identifier
from nuclix.engine.contracts import ObjectClass, SlideHeader
from nuclix.engine.errors import OutputError
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import MeasurementSettings, objects_of
from nuclix.engine.segmentation.objects import Objects, concatenate, take
from nuclix.plugins.writers.geojson import GeoJSONWriter
from nuclix.testing.writer import CHECKS, Check, header, objects, open_files
from rings import gallery, label_images, polygons_of, whole

PIXEL = MeasurementSettings(outline="pixel", keep_holes=True)
DUMMY = Path(__file__).parent / "dummy_distribution"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(GeoJSONWriter, tmp_path)


def write(path: Path, parts: list[Objects], facts: SlideHeader) -> str:
    session = GeoJSONWriter().open(path, facts)
    for part in parts:
        session.write(part)
    session.commit()
    return path.read_text(encoding="utf-8")


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def no_nulls(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(no_nulls, value.values()))
    if isinstance(value, list):
        return all(map(no_nulls, value))
    return value is not None


def check_for_qupath(text: str, found: Objects, facts: SlideHeader) -> None:
    """Items 1 to 9 of what QuPath 0.4 to 0.7 reads, and the geometry itself."""
    collection = json.loads(text, parse_constant=refuse)
    assert collection["type"] == "FeatureCollection"
    assert geojson.loads(text).is_valid
    features = collection["features"]
    assert len(features) == len(found)
    assert no_nulls(collection)
    seed = uuid.uuid5(uuid.NAMESPACE_URL, facts.namespace)
    names = list(found.measurements)
    for index, (feature, polygons) in enumerate(zip(features, polygons_of(found), strict=True)):
        assert list(feature) == ["type", "id", "geometry", "properties"]
        assert feature["type"] == "Feature"
        assert feature["id"] == identifier(seed, *found.first[index].tolist())
        check_geometry(feature["geometry"], polygons, facts)
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        kind = facts.classes[found.classes[index]]
        assert properties["classification"] == {"name": kind.name, "color": list(kind.color)}
        assert list(properties["measurements"]) == names
        values = [column[index] for column in found.measurements.values()]
        np.testing.assert_allclose(list(properties["measurements"].values()), values, rtol=5.01e-5)
    assert len({feature["id"] for feature in features}) == len(features)


def check_geometry(geometry: dict[str, Any], polygons: list[shapely.Polygon], facts: SlideHeader) -> None:
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid, shapely.is_valid_reason(shape)
    assert shape.geom_type == ("Polygon" if len(polygons) == 1 else "MultiPolygon")
    parts = [geometry["coordinates"]] if len(polygons) == 1 else geometry["coordinates"]
    for rings, polygon in zip(parts, polygons, strict=True):
        assert shapely.Polygon(rings[0]).exterior.is_ccw
        for ring, corners in zip(rings, (polygon.exterior, *polygon.interiors), strict=True):
            assert ring[0] == ring[-1]
            assert np.abs(np.diff(ring, axis=0)).sum(1).min() >= 0.01
            assert all(round(value, 2) == value for point in ring for value in point)
            exact = np.array(corners.coords) * facts.downsample - facts.origin[::-1]
            np.testing.assert_allclose(ring, exact, atol=0.00501)
    area = whole(polygons).area * facts.downsample**2
    assert abs(shape.area - area) <= 0.0075 * (shape.length + 1)


@pytest.mark.parametrize("downsample", [1.0, 0.5, 0.501, 4.02])
@pytest.mark.parametrize("name", ["noise 0.6", "nested islands of one label", "checkerboard", "background"])
def test_the_gallery_suits_qupath(name: str, downsample: float, tmp_path: Path) -> None:
    labels = gallery()[name]
    found = objects_of(labels, np.full(labels.shape, 0.5, np.float32), Box(7, 9, *labels.shape), 0.25)
    facts = replace(header(), downsample=downsample, origin=(12.25, -3.0))
    check_for_qupath(write(tmp_path / "x.geojson", [found], facts), found, facts)


@given(
    label_images(),
    st.sampled_from([1.0, 0.5, 0.501, 4.02]),
    st.tuples(st.integers(-5000, 200_000), st.integers(-5000, 200_000)),
    st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
)
def test_any_labels_suit_qupath(
    tmp_path_factory: pytest.TempPathFactory,
    labels: NDArray[np.int32],
    downsample: float,
    place: tuple[int, int],
    origin: tuple[float, float],
) -> None:
    scores = np.random.default_rng(0).random(labels.shape, np.float32)
    found = objects_of(labels, scores, Box(*place, *labels.shape), None)
    facts = replace(header(), downsample=downsample, origin=origin)
    check_for_qupath(write(tmp_path_factory.mktemp("any") / "x.geojson", [found], facts), found, facts)


def test_the_file_to_the_letter(tmp_path: Path) -> None:
    one = objects_of(np.array([[0, 1]]), np.full((1, 2), 0.75, np.float32), Box(8, 4, 1, 2), None, PIXEL)
    facts = SlideHeader("x", 0.5, (1.0, 0.25), (ObjectClass('Nucleus "µ"', (1, 2, 3)),), "seed")
    named = identifier(uuid.uuid5(uuid.NAMESPACE_URL, "seed"), 8, 5)
    assert write(tmp_path / "x.geojson", [one], facts) == (
        '{"type":"FeatureCollection","features":[\n'
        f'{{"type":"Feature","id":"{named}","geometry":{{"type":"Polygon","coordinates":'
        "[[[2.25,3],[2.75,3],[2.75,3.5],[2.25,3.5],[2.25,3]]]},"
        '"properties":{"objectType":"detection","classification":{"name":"Nucleus \\"µ\\"","color":[1,2,3]},'
        '"measurements":{"Area px^2":1,"Length px":4,"Circularity":0.7854,"Solidity":1,'
        '"Max diameter px":1.4142,"Min diameter px":1,"Detection probability":0.75}}}'
        "\n]}\n"
    )


def test_a_slide_without_nuclei(tmp_path: Path) -> None:
    text = write(tmp_path / "x.geojson", [], header())
    assert json.loads(text) == {"type": "FeatureCollection", "features": []}


def test_a_model_without_classes_leaves_the_classification_out(tmp_path: Path) -> None:
    found = objects()
    found.classes[:] = 0
    features = json.loads(write(tmp_path / "x.geojson", [found], replace(header(), classes=())))["features"]
    assert all(list(feature["properties"]) == ["objectType", "measurements"] for feature in features)


def test_other_measurements_than_before_are_refused(tmp_path: Path) -> None:
    session = GeoJSONWriter().open(tmp_path / "x.geojson", header())
    session.write(objects())
    with pytest.raises(ValueError, match="same measurements"):
        session.write(replace(objects(), measurements={"Area": np.ones(len(objects()))}))
    session.abort()


def test_an_infinite_value_never_reaches_the_file(tmp_path: Path) -> None:
    bad = objects()
    bad.measurements["Solidity"][3] = np.inf
    session = GeoJSONWriter().open(tmp_path / "x.geojson", header())
    with pytest.raises(ValueError, match="infinite"):
        session.write(bad)
    session.write(objects())
    session.commit()
    assert len(json.loads((tmp_path / "x.geojson").read_text())["features"]) == len(objects())


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_closed_session_takes_no_more(end: str, tmp_path: Path) -> None:
    session = GeoJSONWriter().open(tmp_path / "x.geojson", header())
    getattr(session, end)()
    with pytest.raises(OutputError, match="closed"):
        session.write(objects())
    with pytest.raises(OutputError, match="closed"):
        session.commit()


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the system refuse more, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_disk_that_takes_no_more(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    before = open_files()
    session = GeoJSONWriter().open(path, header())
    with files_no_larger_than(size), pytest.raises(OutputError) as caught:
        session.write(objects())
        session.commit()
    session.abort()
    assert str(path) in str(caught.value)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert open_files() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end(step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.geojson"
    path.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    session = GeoJSONWriter().open(path, header())
    session.write(objects())
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OutputError) as caught:
            session.commit()
    session.abort()
    assert str(caught.value) == f"{path}: can't be written: {os.strerror(code)}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.geojson"]
    assert path.read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EACCES)):
            GeoJSONWriter().open(tmp_path / "x.geojson", header())
    finally:
        tmp_path.chmod(0o755)


def test_the_longest_name_that_a_folder_takes(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 122 + "x.geojson")  # 253 bytes: the temporary name must not be longer
    write(path, [objects()], header())
    assert path.exists()


def test_a_process_that_is_killed_leaves_no_file_with_the_final_name(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from nuclix.testing.writer import header, objects\n"
        "from nuclix.plugins.writers.geojson import GeoJSONWriter\n"
        "session = GeoJSONWriter().open(Path(sys.argv[1]), header())\n"
        "session.write(objects()); os._exit(9)"
    )
    path = tmp_path / "x.geojson"
    done = subprocess.run([sys.executable, "-c", code, path, Path(__file__).parent], check=False, timeout=120)
    assert done.returncode == 9
    assert not path.exists()
    assert not list(tmp_path.glob("[!.]*"))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    found = concatenate([objects(seed) for seed in range(40)])
    peaks = []
    for count in (2, 20):
        session = GeoJSONWriter().open(tmp_path / "x.geojson", header())
        tracemalloc.start()
        for _ in range(count):
            session.write(found)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        session.abort()
    assert peaks[1] < 1.1 * peaks[0]


def test_many_objects_at_once_are_formatted_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = objects()
    text = write(tmp_path / "x.geojson", [found], header())
    monkeypatch.setattr("nuclix.plugins.writers._features.BLOCK", 4)
    assert write(tmp_path / "y.geojson", [found], header()) == text
    assert write(tmp_path / "z.geojson", [found, take(found, np.zeros(0, np.int64))], header()) == text


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_suite_holds_for_a_writer_from_outside(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DUMMY)
    from nuclix_dummy.writer import CSVWriter  # type: ignore[import-not-found]

    check(CSVWriter, tmp_path)
