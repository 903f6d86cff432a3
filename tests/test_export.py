"""``nuclix export`` and the tables of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from end_to_end import RecordingObserver, config_for, make_model, make_slide
from nuclix.engine.batch.runner import StopFlag, run_batch
from nuclix.engine.cli.main import main
from nuclix.engine.contracts import SlideHeader
from nuclix.engine.report.slide_table import write_slide_table
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.annotations import tissue_annotations
from nuclix.engine.slide.mask_polygons import mask_regions, polygon_area
from nuclix.engine.slide.tissue import TissueMask


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("export")
    slides = [make_slide(folder / "in" / name, seed) for seed, name in enumerate(("a.tif", "sub/b.tif"))]
    config = config_for(folder / "out", make_model(folder / "model.pt"), folder / "in")
    summary = run_batch(config, RecordingObserver(), StopFlag())
    assert len(summary.done) == len(slides)
    return config


def test_export_writes_into_the_output_folder_and_the_run_knows(
    finished: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finished.output_folder
    (out / "a.csv").write_text("someone's")
    assert main(["export", str(out), "--format", "csv,geojson-zip"]) == 0
    assert "4 files of 2 slides" in capsys.readouterr().out
    assert (out / "a.csv.bak").read_text() == "someone's"
    nuclei = len(json.loads((out / "sub/b.geojson").read_bytes())["features"])
    with (out / "sub/b.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == nuclei
    record = json.loads((out / "a.json").read_bytes())
    assert [item["path"] for item in record["outputs"]] == ["a.geojson", "a.csv", "a.zip"]
    again = run_batch(
        RunConfig(**{**{name: getattr(finished, name) for name in finished.__slots__}, "format": ("csv", "geojson")}),
        RecordingObserver(),
        StopFlag(),
    )
    assert sorted(again.skipped) == ["a", "sub/b"] and not again.done


def test_export_to_another_folder_leaves_the_output_folder_alone(finished: RunConfig, tmp_path: Path) -> None:
    out = finished.output_folder
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert main(["export", str(out), "--format", "geojson", "--to", str(tmp_path / "to")]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    for name in ("a", "sub/b"):
        assert (tmp_path / "to" / f"{name}.geojson").read_bytes() == (out / f"{name}.geojson").read_bytes()


def test_export_says_what_is_wrong(finished: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--format", "csv"]) == 2
    assert main(["export", str(finished.output_folder), "--format", "nonsense"]) == 1
    assert "no plugin 'nonsense'" in capsys.readouterr().err
    stored = finished.output_folder / ".nuclix" / "objects" / "a.npz"
    content = stored.read_bytes()
    stored.unlink()
    assert main(["export", str(finished.output_folder), "--format", "csv"]) == 1
    assert "run the slide again" in capsys.readouterr().err
    stored.write_bytes(content)


def test_the_table_of_slides(finished: RunConfig) -> None:
    path = finished.output_folder / "summary.csv"
    write_slide_table(finished.output_folder, path)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "sub/b"]
    for row in rows:
        assert row["state"] == "done" and int(row["nuclei"]) > 0
        density = int(row["nuclei"]) / float(row["tissue_mm2"])
        assert float(row["nuclei_per_mm2"]) == pytest.approx(density, rel=1e-4)
        assert float(row["area_q25_um2"]) <= float(row["median_area_um2"]) <= float(row["area_q75_um2"])


def test_regions_of_a_mask_are_valid_polygons_of_their_pixels() -> None:
    mask = np.random.default_rng(0).random((60, 70)) < 0.6
    for min_pixels in (1, 5, 40):
        regions = mask_regions(mask, min_pixels)
        sizes = np.bincount(regions.labels.ravel())[1:]
        assert len(sizes) == len(regions.polygons) and (sizes >= min_pixels).all()
        for size, polygon in zip(sizes, regions.polygons, strict=True):
            shape = shapely.Polygon(polygon[0], polygon[1:])
            assert shape.is_valid and shape.area == size == polygon_area(polygon)
            assert all(shapely.Polygon(hole).area >= min_pixels for hole in polygon[1:])
    assert mask_regions(np.zeros((3, 3), bool), 1).polygons == ()


def test_tissue_annotations_count_and_measure() -> None:
    mask = np.zeros((100, 120), bool)
    mask[10:50, 20:60] = True
    mask[70:100, 80:120] = True
    mask[0, 0] = True  # a speck
    header = SlideHeader("x", 2.0, (50.0, 64.0), (), "n", shape=(1500, 1830), mpp=0.5)
    tissue = TissueMask(mask, 8.0, 1.0)  # 16 level-0 px, 8 um, along a pixel of the mask
    first = np.array([[10 * 8, 20 * 8], [49 * 8 + 7, 59 * 8 + 7], [50 * 8, 20 * 8], [96 * 8, 117 * 8]])
    one, two = tissue_annotations(header, tissue, [first[:2], first[2:]])
    assert one.name == "Tissue 1" and one.measurements["Num Nuclei"] == 2
    area = 40 * 40 * 8.0**2
    assert one.measurements["Area µm^2"] == area
    assert one.measurements["Num Nuclei per mm^2"] == pytest.approx(2 / area * 1e6)
    ring = one.polygons[0][0]
    np.testing.assert_array_equal(ring.min(axis=0), [20 * 16 - 64, 10 * 16 - 50])
    assert two.measurements["Num Nuclei"] == 1
    np.testing.assert_array_equal(two.polygons[0][0].max(axis=0), [1830, 1500])  # cut at the slide's edge
