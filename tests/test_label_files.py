"""Label images and GeoJSON into label arrays: every format, and a clear message for what is none."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.label_files import find_label_files, read_label_image, read_pair, stem_of
from nuclix.engine.evaluation.polygons import rasterise, read_polygons

LABELS = np.array([[0, 1, 1, 0], [300, 0, 1, 0], [300, 300, 0, 2]], np.int32)


def feature(geometry: Any, kind: str | None = "detection", **more: Any) -> dict[str, Any]:
    geometry = shapely.geometry.mapping(geometry) if isinstance(geometry, shapely.Geometry) else geometry
    properties = {} if kind is None else {"objectType": kind}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **more}


def outlined(labels: np.ndarray, pixel: float = 1.0) -> list[dict[str, Any]]:
    features = []
    for label in np.unique(labels[labels != 0]):
        union = shapely.union_all([shapely.box(c, r, c + 1, r + 1) for r, c in np.argwhere(labels == label)])
        features.append(feature(shapely.transform(union, lambda corners: np.round(corners * pixel, 2))))
    return features


def write(path: Path, features: Any) -> Path:
    document = {"type": "FeatureCollection", "features": features} if isinstance(features, list) else features
    path.write_text(json.dumps(document))
    return path


def drawn(path: Path, shape: tuple[int, int] = (4, 6), pixel: float = 1.0) -> np.ndarray:
    return rasterise(read_polygons(path), shape, pixel, path)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("a.png", dtype) for dtype in ("bool", "uint8", "uint16")),
        *((name, dtype) for name in ("a.tif", "a.TIFF", "a.npy") for dtype in ("bool", "uint8", "uint16", "int32")),
        *((name, dtype) for name in ("a.tif", "a.npy") for dtype in ("uint32", "int64")),
    ],
)
def test_every_format_and_dtype_comes_back(tmp_path: Path, name: str, dtype: str) -> None:
    labels = (LABELS % 256 if dtype == "uint8" else LABELS).astype(dtype)
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(labels).save(path)
    elif name.endswith("npy"):
        np.save(path, np.asfortranarray(labels))
    else:
        tifffile.imwrite(path, labels, compression="zlib" if dtype != "bool" else None)
    got = read_label_image(path)
    np.testing.assert_array_equal(got, labels)


def test_a_palette_png_gives_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray((LABELS % 5).astype(np.uint8)).convert("P")
    image.putdata((LABELS % 5).ravel().tolist())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "a.png"), LABELS % 5)


def bad_files(folder: Path) -> dict[str, str]:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "rgb.png")
    tifffile.imwrite(folder / "float.tif", np.zeros((4, 5), np.float32))
    tifffile.imwrite(folder / "stack.tif", np.zeros((7, 4, 5), np.uint8))
    np.save(folder / "complex.npy", np.zeros((4, 5), complex))
    np.save(folder / "object.npy", np.array([None, {}], object), allow_pickle=True)
    np.save(folder / "negative.npy", np.array([[0, -3]]))
    np.save(folder / "line.npy", np.zeros(4, int))
    for name in ("text.png", "text.tif", "text.npy"):
        (folder / name).write_text("these are no pixels")
    for name in ("empty.png", "empty.tif", "empty.npy"):
        (folder / name).write_bytes(b"")
    whole = (folder / "rgb.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    return {
        "rgb.png": "colour image of 3 channels",
        "float.tif": "float32.*probability map",
        "stack.tif": "3 dimensions",
        "complex.npy": "complex128",
        "object.npy": "can't be read",
        "negative.npy": "negative label -3",
        "line.npy": "1 dimensions",
        "photo.jpg": r"no label file: \.png",
        "missing.png": "can't be read",
        **dict.fromkeys(["text.png", "text.tif", "text.npy", "empty.png", "empty.tif", "empty.npy"], "can't be read"),
        "cut.png": "can't be read",
    }


def test_what_is_no_label_image_is_said_by_name(tmp_path: Path) -> None:
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(DataError, match=rf"{name}.*{reason}"):
            read_label_image(tmp_path / name)


@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 3)),
    st.sampled_from([1.0, 0.5, 2.0, 0.501, 4.0003, 0.2537]),
)
def test_outlines_on_pixel_edges_give_the_labels_back(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray, pixel: float
) -> None:
    path = write(tmp_path_factory.mktemp("outlines") / "a.geojson", outlined(labels, pixel))
    values = np.unique(labels)
    got = drawn(path, labels.shape, pixel)
    expected = np.searchsorted(values[values != 0], labels) + 1
    np.testing.assert_array_equal(got, np.where(labels == 0, 0, expected))


def test_every_way_to_write_a_geojson(tmp_path: Path) -> None:
    features = [feature(shapely.box(0, 0, 2, 1)), feature(shapely.box(3, 2, 5, 4))]
    expected = drawn(write(tmp_path / "collection.geojson", features))
    assert expected.max() == 2
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "list.json").write_text(json.dumps(features))
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for number, each in enumerate(features):
            archive.writestr(f"part{number}.geojson", json.dumps(each))
        archive.writestr("README.md", "not this one")
    for name in ("a.geojson.gz", "list.json", "parts.zip"):
        np.testing.assert_array_equal(drawn(tmp_path / name), expected)


def test_nuclei_are_told_from_annotations(tmp_path: Path) -> None:
    region, nucleus = shapely.box(0, 0, 6, 4), shapely.box(1, 1, 3, 3)
    cell = feature(shapely.box(0, 0, 4, 4), "cell", nucleusGeometry=shapely.geometry.mapping(nucleus))
    features = [feature(region, "annotation"), cell, feature(shapely.Point(1, 1))]
    got = drawn(write(tmp_path / "a.geojson", features))
    assert np.count_nonzero(got) == 4
    assert set(np.unique(got)) == {0, 1}
    annotated = write(tmp_path / "b.geojson", [feature(nucleus, "annotation"), feature(nucleus, None)])
    assert np.count_nonzero(drawn(annotated)) == 4


def test_a_multipolygon_is_one_object_and_the_first_claim_holds(tmp_path: Path) -> None:
    two = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    path = write(tmp_path / "a.geojson", [feature(two), feature(shapely.box(2, 0, 5, 1))])
    np.testing.assert_array_equal(drawn(path, (1, 6)), [[1, 0, 1, 2, 2, 0]])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "is not a GeoJSON file"),
        ('{"type": "Polygon"}', "feature 1 .*no proper geometry"),
        ("[1, 2]", "no features"),
        (json.dumps([feature({"type": "Polygon", "coordinates": [[1, 2, 3]]})]), "feature 1 .*no proper geometry"),
        (json.dumps([feature({"type": "Polygon", "coordinates": [[]]})]), "feature 1 .*no proper geometry"),
        (json.dumps([feature({"type": "Polygon"})]), "feature 1 .*no proper geometry"),
        (json.dumps([feature("POLYGON")]), "feature 1 .*no proper geometry"),
        (json.dumps([feature({"type": "Polygon", "coordinates": [[[0, 0], [0, float("nan")], [1, 1]]]})]), "finite"),
    ],
)
def test_bad_geojson_is_said_by_name(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_polygons(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.geojson.gz", "a.zip", "a.geojson"])
def test_broken_containers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\x00 not this")
    with pytest.raises(DataError, match=name):
        read_polygons(tmp_path / name)


def test_nothing_to_draw(tmp_path: Path) -> None:
    features = [
        feature(None),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "MultiPolygon", "coordinates": [[]]}),
    ]
    for name, each in (("a.geojson", []), ("b.geojson", features)):
        assert not drawn(write(tmp_path / name, each)).any()


def test_a_polygon_outside_asks_for_the_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", outlined(LABELS, 4.0))
    with pytest.raises(DataError, match=r"feature \d of .*outside the image of 3 x 4 px: is --downsample 1 right"):
        drawn(path, LABELS.shape)
    np.testing.assert_array_equal(drawn(path, LABELS.shape, 4.0) > 0, LABELS > 0)


def test_pairs_of_any_two_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", LABELS)
    geojson = write(tmp_path / "outlines.geojson", outlined(LABELS, 2.0))
    for truth, prediction in (("image.npy", geojson.name), (geojson.name, "image.npy"), (geojson.name, geojson.name)):
        pair = read_pair(tmp_path / truth, tmp_path / prediction, 2.0)
        for image in (pair.truth, pair.prediction):
            np.testing.assert_array_equal(image > 0, LABELS > 0)
        assert pair.notes == ()
    np.save(tmp_path / "wide.npy", LABELS.T)
    with pytest.raises(DataError, match=r"image.npy is 3 x 4 px but .*wide.npy is 4 x 3 px"):
        read_pair(tmp_path / "image.npy", tmp_path / "wide.npy")


def test_a_mask_draws_a_note_but_one_nucleus_does_not(tmp_path: Path) -> None:
    one, mask = np.zeros((2, 5, 5), np.uint8)
    one[1:3, 1:3] = 255
    mask[0, 0] = mask[4, 4] = 255
    np.save(tmp_path / "one.npy", one)
    np.save(tmp_path / "mask.npy", mask)
    notes = read_pair(tmp_path / "one.npy", tmp_path / "mask.npy").notes
    assert len(notes) == 1
    assert "mask.npy holds one label in several pieces" in notes[0]


def test_polygons_that_ask_for_a_huge_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", [feature(shapely.box(1e6, 1e6, 1e6 + 9, 1e6 + 9))])
    with pytest.raises(DataError, match="use a larger --downsample"):
        read_pair(path, path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("TCGA-18-5592-01Z-00-DX1.png", "TCGA-18-5592-01Z-00-DX1"),
        ("slide.svs.geojson.gz", "slide"),
        ("slide.geojson", "slide"),
        ("a.b.c.TIFF", "a.b.c"),
        ("x.ome.tif", "x"),
        ("x.json", "x"),
        (".png", ".png"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


def test_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no label files"):
        find_label_files(tmp_path)
    for name in ("b.geojson", "a.npy", "b.json", "report.html", ".c.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    assert find_label_files(tmp_path) == {"a": tmp_path / "a.npy", "b": tmp_path / "b.geojson"}
    (tmp_path / "a.TIF").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.TIF and .*a\.npy are both named a"):
        find_label_files(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_label_files(tmp_path / "nowhere")


def test_of_several_formats_of_a_result_one_is_read(tmp_path: Path) -> None:
    for name in ("a.zip", "a.geojson", "a.geojson.gz", "b.zip", "b.geojson.gz", "c.zip", "d.svs.geojson"):
        (tmp_path / name).touch()
    found = {stem: path.name for stem, path in find_label_files(tmp_path).items()}
    assert found == {"a": "a.geojson", "b": "b.geojson.gz", "c": "c.zip", "d": "d.svs.geojson"}
    (tmp_path / "d.geojson").touch()
    with pytest.raises(DataError, match="both named d"):
        find_label_files(tmp_path)
