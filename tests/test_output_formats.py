"""Several formats in one run, and further ones afterwards without the network."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from end_to_end import RecordingObserver, config_for, make_model, make_slide
from nuclix.engine.batch.outputs import large_slide_notice
from nuclix.engine.batch.runner import RunSummary, StopFlag, run_batch
from nuclix.engine.run_config import LARGE_SLIDE, RunConfig
from nuclix.engine.segmentation.outputs import chosen_formats
from nuclix.engine.segmentation.record import SlideRecord


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return the configuration of a run that is finished."""
    folder = tmp_path_factory.mktemp("formats")
    slide = make_slide(folder / "a.tif")
    config = config_for(folder / "out", make_model(folder / "model.pt"), slide)
    summary, _ = run(config)
    assert list(summary.done) == ["a"]
    return config


def run(config: RunConfig) -> tuple[RunSummary, RecordingObserver]:
    observer = RecordingObserver()
    return run_batch(config, observer, StopFlag()), observer


def features_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix != ".zip":
        return list(json.loads(path.read_bytes())["features"])
    with zipfile.ZipFile(path) as archive:
        return [item for name in archive.namelist() for item in json.loads(archive.read(name))["features"]]


def test_a_further_format_is_written_without_the_network(finished: RunConfig) -> None:
    out = finished.output_folder
    before = (out / "a.geojson").stat().st_mtime_ns
    config = replace(finished, format=("geojson-zip", "geojson.gz"))
    summary, observer = run(config)
    assert list(summary.done) == ["a"] and not summary.failed
    assert observer.notices == ["a.tif: adding geojson-zip, geojson.gz to the finished result"]
    tiles = {progress.tiles for _, progress in observer.progress}
    assert tiles <= {summary.done["a"].counts["tiles"]}, "nothing is computed"
    assert (out / "a.geojson").stat().st_mtime_ns == before
    assert features_of(out / "a.zip") == features_of(out / "a.geojson")
    record = json.loads((out / "a.json").read_bytes())
    assert [item["path"] for item in record["outputs"]] == ["a.geojson", "a.zip", "a.geojson.gz"]
    for same in (config, finished):
        summary, observer = run(same)
        assert summary.skipped == ["a"] and not observer.notices


def test_a_deleted_result_is_written_again_to_the_same_bytes(finished: RunConfig) -> None:
    result = finished.output_folder / "a.geojson"
    content = result.read_bytes()
    result.unlink()
    summary, observer = run(finished)
    assert list(summary.done) == ["a"] and "writing it again" in observer.notices[0]
    assert result.read_bytes() == content


def test_a_damaged_store_is_computed_again(finished: RunConfig) -> None:
    out = finished.output_folder
    content = (out / "a.geojson").read_bytes()
    (out / ".nuclix" / "objects" / "a.npz").write_bytes(b"PK nonsense")
    (out / "a.geojson").unlink()
    summary, _ = run(finished)
    assert list(summary.done) == ["a"] and (out / "a.geojson").read_bytes() == content


def test_the_file_says_what_made_it(finished: RunConfig) -> None:
    content = json.loads((finished.output_folder / "a.geojson").read_bytes())
    record = json.loads((finished.output_folder / "a.json").read_bytes())
    assert content["nuclix"]["model"]["sha256"] == record["model"]["sha256"]
    assert content["nuclix"]["settings"] == {name: record["settings"][name] for name in content["nuclix"]["settings"]}


def test_tissue_annotations_are_added_to_a_finished_result(finished: RunConfig) -> None:
    out = finished.output_folder
    nuclei = features_of(out / "a.geojson")
    summary, _ = run(replace(finished, tissue_annotations=True))
    assert list(summary.done) == ["a"]
    found = features_of(out / "a.geojson")
    regions = [item for item in found if item["properties"]["objectType"] == "annotation"]
    assert [item for item in found if item not in regions] == nuclei
    assert regions and all(item["properties"]["isLocked"] for item in regions)
    assert sum(item["properties"]["measurements"]["Num Nuclei"] for item in regions) <= len(nuclei)
    run(finished)
    assert features_of(out / "a.geojson") == nuclei


def test_auto_zips_large_slides_and_says_so() -> None:
    assert chosen_formats(("auto",), LARGE_SLIDE) == ("geojson",)
    assert chosen_formats(("auto", "csv", "geojson-zip"), LARGE_SLIDE + 1) == ("geojson-zip", "csv")
    counts = {"nuclei": 996_621}
    record = SlideRecord({}, {}, {}, counts=counts, outputs=[{"format": "geojson-zip", "path": "sub/a.zip"}])
    assert "996,621 nuclei are written as sub/a.zip" in large_slide_notice("a.svs", ("auto",), record)
    assert large_slide_notice("a.svs", ("geojson-zip",), record) == ""
    assert large_slide_notice("a.svs", ("auto",), SlideRecord({}, {}, {}, counts={"nuclei": 5})) == ""
