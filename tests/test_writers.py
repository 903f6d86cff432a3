"""Every built-in writer: the conformance suite, and what programs that read the files find in them."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import pytest
import shapely
import tifffile

from nuclix.engine.contracts import Annotation, ObjectClass, SlideHeader, Writer
from nuclix.engine.errors import PluginError
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.coordinates import centroids, level0_corners, object_ids
from nuclix.engine.segmentation.measure import SHAPE_ONLY, objects_of
from nuclix.engine.segmentation.objects import Objects, concatenate, take
from nuclix.plugins.writers import geojson_zip
from nuclix.plugins.writers.geojson import GeoJSONWriter, GzippedGeoJSONWriter
from nuclix.plugins.writers.geojson_zip import GeoJSONZipWriter
from nuclix.plugins.writers.label_image import LabelImageWriter
from nuclix.plugins.writers.parquet import GeoParquetWriter
from nuclix.plugins.writers.table import TableWriter
from nuclix.testing.writer import CHECKS, Check, blocks, header, written
from rings import polygons_of, whole

WRITERS: list[type[Any]] = [
    GzippedGeoJSONWriter, GeoJSONZipWriter, TableWriter, GeoParquetWriter, LabelImageWriter,
]  # fmt: skip


def objects() -> Objects:
    """Return nuclei in several parts and with holes, nuclei of one ring, and smooth ones."""
    rng = np.random.default_rng(0)
    pixel = replace(SHAPE_ONLY, outline="pixel", keep_holes=True)
    parts = np.kron(rng.integers(0, 30, (20, 20)), np.ones((3, 4), int)) * (rng.random((60, 80)) < 0.97)
    plain = np.kron(np.arange(1, 61).reshape(3, 20), np.pad(np.ones((4, 3), int), ((0, 1), (0, 1))))
    found = [
        objects_of(labels, np.full(labels.shape, 0.5, np.float32), Box(row, 200, *labels.shape), 0.25, settings)
        for labels, row, settings in ((parts, 100, pixel), (plain, 164, SHAPE_ONLY))
    ]
    whole = concatenate(found)
    whole.classes[1::2] = 1
    return whole


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("writer", WRITERS)
def test_conformance(writer: type[Writer], check: Check, tmp_path: Path) -> None:
    check(writer, tmp_path)


def write(writer: type[Any], path: Path, found: Objects, facts: SlideHeader) -> Path:
    session = writer().open(path, facts)
    for block in blocks(found, 50):
        session.write(block)
    session.commit()
    return path


@pytest.fixture
def features(tmp_path: Path) -> list[dict[str, Any]]:
    """Return what the plain GeoJSON of the same objects has."""
    return list(json.loads(written(GeoJSONWriter, tmp_path / "plain.geojson", [objects()]))["features"])


def test_gzip_holds_the_plain_file(tmp_path: Path) -> None:
    plain = written(GeoJSONWriter, tmp_path / "a.geojson", [objects()])
    assert gzip.decompress(written(GzippedGeoJSONWriter, tmp_path / "a.geojson.gz", [objects()])) == plain


@pytest.mark.parametrize("limit", [1, 7, 10**6])
def test_zip_entries_are_whole_collections(
    limit: int, tmp_path: Path, features: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geojson_zip, "ENTRY_OBJECTS", limit)
    facts = replace(header(), provenance={"version": "1", "slide": "a\udcff.svs"})
    path = write(GeoJSONZipWriter, tmp_path / "a slide.zip", objects(), facts)
    found = []
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for number, info in enumerate(archive.infolist(), 1):
            assert info.filename == f"nuclei-{number:04d}.geojson"
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            collection = json.loads(archive.read(info))
            assert geojson.loads(archive.read(info)).is_valid
            assert collection["nuclix"]["version"] == "1"
            assert 1 <= len(collection["features"]) <= limit
            found += collection["features"]
    assert found == features


def test_a_zip_without_nuclei_has_an_entry(tmp_path: Path) -> None:
    with zipfile.ZipFile(write(GeoJSONZipWriter, tmp_path / "a.zip", take(objects(), np.zeros(0, int)), header())) as f:
        assert [json.loads(f.read(name))["features"] for name in f.namelist()] == [[]]


def test_annotations_come_before_the_nuclei_and_are_locked(tmp_path: Path, features: list[dict[str, Any]]) -> None:
    ring = np.array([[0.004, 0.0], [10.0, 0.0], [10.0, 20.126], [0.0, 20.0]])
    region = Annotation("Tissue 1", ObjectClass("Tissue", (1, 2, 3)), ((ring,),), {"Num Nuclei": 5.0})
    facts = replace(header(), annotations=(region, region))
    plain = json.loads(write(GeoJSONWriter, tmp_path / "a.geojson", objects(), facts).read_bytes())["features"]
    assert plain[2:] == features
    first = plain[0]
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "Tissue 1",
        "classification": {"name": "Tissue", "color": [1, 2, 3]},
        "isLocked": True,
        "measurements": {"Num Nuclei": 5.0},
    }
    assert first["geometry"]["coordinates"] == [[[0, 0], [10, 0], [10, 20.13], [0, 20], [0, 0]]]
    assert len({item["id"] for item in plain}) == len(plain)
    with zipfile.ZipFile(write(GeoJSONZipWriter, tmp_path / "a.zip", objects(), facts)) as archive:
        names = archive.namelist()
        assert names[0] == "nuclei-annotations.geojson"
        assert [item for name in names for item in json.loads(archive.read(name))["features"]] == plain


def centroids_of(features: list[dict[str, Any]]) -> np.ndarray:
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    return np.array([(shape.centroid.x, shape.centroid.y) for shape in shapes])


def test_the_table_has_the_columns_of_qupaths_export(tmp_path: Path, features: list[dict[str, Any]]) -> None:
    with write(TableWriter, tmp_path / "a.csv", objects(), header()).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["Image", "Object ID", "Object type", "Classification", "Centroid X µm", "Centroid Y µm"]
    assert list(rows[0]) == [*names, *objects().measurements]
    assert [row["Object ID"] for row in rows] == [feature["id"] for feature in features]
    assert [row["Classification"] for row in rows] == [
        feature["properties"]["classification"]["name"] for feature in features
    ]
    found = np.array([(row["Centroid X µm"], row["Centroid Y µm"]) for row in rows], float)
    np.testing.assert_allclose(found, centroids_of(features) * 0.5, rtol=1e-8)
    for name, column in objects().measurements.items():
        np.testing.assert_allclose(np.array([row[name] or "nan" for row in rows], float), column, rtol=1e-8)


def test_a_measurement_that_is_not_known_is_an_empty_cell(tmp_path: Path) -> None:
    found = objects()
    found.measurements["Solidity"][3] = np.nan
    with write(TableWriter, tmp_path / "a.csv", found, replace(header(), mpp=None)).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["Solidity"] == "" and rows[4]["Solidity"] != "" and "Centroid X px" in rows[0]


def test_geopandas_reads_the_parquet(tmp_path: Path, features: list[dict[str, Any]]) -> None:
    geopandas = pytest.importorskip("geopandas")
    path = write(GeoParquetWriter, tmp_path / "a.parquet", objects(), replace(header(), provenance={"version": "1"}))
    table = geopandas.read_parquet(path)
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert {shape.geom_type for shape in shapes} == {"Polygon", "MultiPolygon"}
    assert all(shapely.equals_exact(table.geometry.to_numpy(), shapes, tolerance=0, normalize=False))
    assert list(table["id"]) == [feature["id"] for feature in features]
    assert list(table["classification"]) == [item["properties"]["classification"]["name"] for item in features]
    np.testing.assert_allclose(table[["centroid_x", "centroid_y"]], centroids_of(features), atol=1e-7)
    for name, column in objects().measurements.items():
        np.testing.assert_array_equal(table[name], column)
    assert table.crs is None
    part = geopandas.read_parquet(path, bbox=(100, 50, 110, 60))
    assert 0 < len(part) < len(table)


def test_parquet_metadata_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("nuclix.plugins.writers.parquet.GROUP_OBJECTS", 20)
    path = write(GeoParquetWriter, tmp_path / "a.parquet", objects(), replace(header(), provenance={"version": "1"}))
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    assert set(groups[:-1]) == {20} and sum(groups) == len(objects())
    metadata = file.metadata.metadata
    assert json.loads(metadata[b"nuclix"]) == {
        "version": "1",
        "slide": "a slide.v2",
        "mpp": 0.5,
        "unit": "level-0 pixel",
    }
    geo = json.loads(metadata[b"geo"])["columns"]["geometry"]
    assert geo["geometry_types"] == ["MultiPolygon", "Polygon"] and geo["crs"] is None
    file.close()


def test_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"pip install pyarrow shapely"):
        GeoParquetWriter()


def test_anndata_reads_measurements_classes_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # anndata imports a package of its own called testing, which the folder of this name at the root would hide.
    root = Path(__file__).resolve().parents[1]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).resolve() != root])
    monkeypatch.delitem(sys.modules, "testing", raising=False)
    anndata = pytest.importorskip("anndata")
    from nuclix.plugins.writers.h5ad import AnnDataWriter

    found, facts = objects(), replace(header(), provenance={"version": "1"})
    table = anndata.read_h5ad(write(AnnDataWriter, tmp_path / "a.h5ad", found, facts))
    assert list(table.var_names) == list(found.measurements)
    np.testing.assert_allclose(table.X.T, list(found.measurements.values()), rtol=1e-6)
    assert table.obs["classification"].tolist() == [facts.classes[index].name for index in found.classes]
    assert list(table.obs_names) == object_ids(found, facts)
    np.testing.assert_allclose(table.obsm["spatial"], centroids(found, level0_corners(found, facts)).points)
    assert json.loads(table.uns["nuclix"])["version"] == "1"


def test_anndata_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from nuclix.plugins.writers.h5ad import AnnDataWriter

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PluginError, match="pip install anndata"):
        AnnDataWriter()


def test_the_label_image_is_a_pyramid_of_numbered_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclix.plugins.writers.label_image.SMALLEST_LEVEL", 100)
    facts = replace(header(), origin=(0.0, 0.0), shape=(130, 150))
    found = objects()
    with tifffile.TiffFile(write(LabelImageWriter, tmp_path / "a.ome.tif", found, facts)) as file:
        (series,) = file.series
        assert file.is_ome and file.pages.first.is_tiled and file.ome_metadata is not None
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
        levels = [level.asarray() for level in series.levels]
    assert [level.shape for level in levels] == [(260, 300), (130, 150), (65, 75)]
    np.testing.assert_array_equal(levels[2], levels[0][::4, ::4])
    counts = np.bincount(levels[0].ravel(), minlength=len(found) + 1)[1:]
    assert (np.abs(counts - found.pixels) <= 2).all() and (counts == found.pixels)[:29].all()
    for number, polygons in enumerate(polygons_of(found), 1):
        rows, cols = np.nonzero(levels[0] == number)
        assert shapely.contains_xy(whole(polygons), cols + 0.5, rows + 0.5).all()


def test_the_label_image_does_not_depend_on_its_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(header(), shape=(130, 150))
    monkeypatch.setattr("nuclix.plugins.writers.label_image.TILE", 32)
    monkeypatch.setattr("nuclix.plugins.writers.label_image.SMALLEST_LEVEL", 100)
    expected = write(LabelImageWriter, tmp_path / "a.ome.tif", objects(), facts).read_bytes()
    for name in ("_label_canvas", "label_image"):
        monkeypatch.setattr(f"nuclix.plugins.writers.{name}.WINDOW", 64)
    monkeypatch.setattr("nuclix.plugins.writers._label_canvas._BYTES", 64 * 64 * 4)
    assert write(LabelImageWriter, tmp_path / "b.ome.tif", objects(), facts).read_bytes() == expected
