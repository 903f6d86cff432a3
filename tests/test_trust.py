"""Finished work survives what people do: another option, a message that is followed, a share, a crash, an upgrade."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from end_to_end import RecordingObserver, config_for, make_model, make_slide, results
from nuclix.engine.batch.ledger import DONE, Ledger
from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.batch.slide_table import list_slides
from nuclix.engine.cli.main import main
from nuclix.engine.errors import UsageError
from nuclix.engine.run_config import RunConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two slides, one of which states no scale, with a model."""
    folder = tmp_path_factory.mktemp("trust")
    make_slide(folder / "slides" / "stated.tif", 1, mpp=0.5)
    make_slide(folder / "slides" / "silent.tif", 2, mpp=None)
    make_model(folder / "red.pt")
    make_model(folder / "other.pt", threshold=2.0)
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> RunConfig:
    shutil.copytree(folder / "slides", tmp_path / "slides")
    return config_for(tmp_path / "out", folder / "red.pt", tmp_path / "slides")


def run(config: RunConfig, stop: StopFlag | None = None) -> tuple[RunSummary, RecordingObserver]:
    notes = RecordingObserver()
    return run_batch(config, notes, stop or StopFlag()), notes


def record(config: RunConfig, name: str) -> dict[str, Any]:
    return json.loads((config.output_folder / f"{name}.json").read_text())


def test_mpp_fills_in_and_changes_no_slide_that_states_its_scale(config: RunConfig, tmp_path: Path) -> None:
    first, _ = run(config)
    assert set(first.done) == {"stated"} and "states no scale; give it with --mpp" in first.failed["silent"]
    stated = results(config.output_folder)["stated.geojson"]
    second, notes = run(replace(config, mpp=0.25))  # the message followed
    assert set(second.done) == {"silent"} and second.skipped == ["stated"] and not notes.notices
    assert results(config.output_folder)["stated.geojson"] == stated
    found = {name: record(config, name)["slide"] for name in ("stated", "silent")}
    assert found["stated"]["mpp_source"] != "--mpp" and found["stated"]["mpp"] == 0.5
    assert (found["silent"]["mpp_source"], found["silent"]["mpp"]) == ("--mpp", 0.25)
    before = results(config.output_folder)
    with pytest.raises(UsageError, match=r"1 finished result was made differently \(mpp\)"):
        run(replace(config, mpp=0.5))
    with pytest.raises(UsageError, match=r"1 finished result was made differently \(mpp\)"):
        run(replace(config, force_mpp=0.25))
    assert results(config.output_folder) == before
    third, _ = run(config)  # without --mpp again: nothing contradicts the finished result
    assert sorted(third.skipped) == ["silent", "stated"]
    forced, _ = run(replace(config, force_mpp=0.25, recompute=True))
    assert set(forced.done) == {"stated"} and forced.skipped == ["silent"]
    assert "--force-mpp sets 0.25 um/px, the file states 0.5" in record(config, "stated")["warnings"][0]


def test_a_table_gives_each_slide_its_scale(config: RunConfig, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("\ufeffcase,Path,MPP\n1,slides/silent.tif,0.25\n2,slides/stated.tif,\n", encoding="utf-8")
    summary, _ = run(replace(config, inputs=(), slides=str(table)))
    assert set(summary.done) == {"silent", "stated"}
    assert record(config, "silent")["slide"]["mpp_source"] == "slides.csv"
    assert record(config, "stated")["slide"]["mpp"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,mpp\na.svs,0.25\n", "has no column 'path'"),
        ("path,mpp\nslides/silent.tif,0,25\n", "line 2: mpp must be between 0.05 and 20"),
        ("path,mpp\nslides/silent.tif,25\n", "line 2: mpp must be between 0.05 and 20"),
        ("path,mpp\nslides/silent.tif,a\n", "line 2: mpp must be a number"),
        ("path,mpp\n,0.25\n", "line 2: the column 'path' is empty"),
        ("path\nslides/silent.tif\nslides/../slides/silent.tif\n", "line 3: .* is listed twice"),
        ("path\nslides/none.tif\n", "none.tif: no such file"),
        ("", "has no column 'path'"),
    ],
)
def test_a_table_that_can_not_be_used_names_its_line(config: RunConfig, tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=said):
        list_slides(replace(config, slides=str(table)))


def test_a_run_with_another_option_that_is_stopped_costs_nothing(config: RunConfig) -> None:
    config = replace(config, mpp=0.25)
    run(config)
    before = results(config.output_folder)
    stop = StopFlag()
    other = replace(config, tta=True, recompute=True)

    class Stopper(RecordingObserver):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            stop.reason = "SIGINT received" if event.kind == "slide_progress" else stop.reason

    assert run_batch(other, Stopper(), stop).stopped == "SIGINT received"
    assert results(config.output_folder) == before
    again, notes = run(config)
    assert sorted(again.skipped) == ["silent", "stated"] and not again.done and not notes.notices


def test_a_slide_that_fails_keeps_its_old_result(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, mpp=0.25)
    run(config)
    before = results(config.output_folder)
    slide = tmp_path / "slides" / "stated.tif"
    content = slide.read_bytes()
    slide.write_bytes(content[: len(content) // 2])  # just being copied
    cut, _ = run(replace(config, recompute=True))
    assert set(cut.failed) == {"stated"} and results(config.output_folder) == before
    slide.write_bytes(content)
    whole, _ = run(config)
    assert sorted(whole.skipped) == ["silent", "stated"]
    with closing(Ledger(config.output_folder)) as ledger:
        assert {row.state for row in ledger.rows()} == {DONE}


def test_a_lost_ledger_is_made_again_from_the_records(config: RunConfig) -> None:
    config = replace(config, mpp=0.25)
    run(config)
    before = results(config.output_folder)
    (config.output_folder / "nuclix.db").unlink()
    again, _ = run(config)
    assert sorted(again.skipped) == ["silent", "stated"]
    assert results(config.output_folder) == before
    with closing(Ledger(config.output_folder)) as ledger:
        assert {row.state for row in ledger.rows()} == {DONE} and ledger.rows()[0].record["counts"]


def test_a_copy_of_the_folder_is_finished_too(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, mpp=0.25)
    run(config)
    for path in (*config.output_folder.iterdir(), *(tmp_path / "slides").iterdir()):
        os.utime(path)
    again, notes = run(config)
    assert sorted(again.skipped) == ["silent", "stated"]
    assert notes.notices == ["comparing the contents of files whose modification times are new or not known"]
    _, quiet = run(config)
    assert not quiet.notices


def test_a_slide_of_the_same_name_from_another_folder_stops_the_run(config: RunConfig, tmp_path: Path) -> None:
    run(config)
    make_slide(tmp_path / "more" / "stated.tif", 7)
    with pytest.raises(UsageError, match=r"made differently \(slide\)"):
        run(replace(config, inputs=(str(tmp_path / "more"),)))


def test_a_model_that_is_replaced_during_a_run_is_noticed(
    config: RunConfig, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine.batch import runner

    model = tmp_path / "model.pt"
    shutil.copy(folder / "red.pt", model)
    real = runner.model_hash

    def replaced(path: Path) -> str:
        before = real(path)
        shutil.copy(folder / "other.pt", model)
        return before

    monkeypatch.setattr(runner, "model_hash", replaced)
    with pytest.raises(UsageError, match=r"model.pt: its file was replaced after the run started"):
        run(replace(config, model=str(model)))


def test_a_slide_that_changes_while_it_is_processed_gets_no_result(config: RunConfig, tmp_path: Path) -> None:
    from nuclix.engine.batch import executor, worker
    from nuclix.engine.batch.layout import slide_paths
    from nuclix.engine.segmentation.hooks import RunHooks
    from nuclix.engine.segmentation.slide import make_context

    config.output_folder.mkdir()
    shared = make_context(config, 0.0)
    path = tmp_path / "slides" / "stated.tif"
    (job,) = (job for job in list_slides(config).jobs if job.path.name == path.name)
    hooks = RunHooks(lambda progress: os.utime(path), lambda: False)
    message = worker.process_slide(job, shared, hooks)
    assert isinstance(message, executor.Failed) and "was changed while it was being processed" in message.message
    assert not slide_paths(config.output_folder, job).result(".geojson").exists()


def test_signals_and_the_time_limit_are_heeded_while_slides_are_checked(config: RunConfig) -> None:
    run(config)
    summary, _ = run(replace(config, time_limit=1e-6))
    assert "time limit of 1e-06 s is reached" in summary.stopped
    stopped, _ = run(config, StopFlag("SIGTERM received"))
    assert stopped.stopped == "SIGTERM received"


def test_another_class_map_is_written_from_the_stored_objects(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, inputs=(str(tmp_path / "slides" / "stated.tif"),))
    run(config)
    renamed = tmp_path / "classes.toml"
    renamed.write_text('[Nucleus]\nname = "Cell"\ncolor = [1, 2, 3]\n')
    before = json.loads((config.output_folder / "stated.geojson").read_text())["features"]
    second, notes = run(replace(config, class_map=str(renamed)))
    assert set(second.done) == {"stated"}
    assert notes.notices == ["stated.tif: writing the stored objects again with another class map"]
    assert not notes.progress or notes.progress[0][1].tiles == notes.progress[0][1].tiles_total, "no network"
    after = json.loads((config.output_folder / "stated.geojson").read_text())["features"]
    assert {json.dumps(item["properties"]["classification"]) for item in after} == {
        '{"name": "Cell", "color": [1, 2, 3]}'
    }
    assert [item["geometry"] for item in after] == [item["geometry"] for item in before]
    found = record(config, "stated")
    assert found["counts"]["nuclei_by_class"] == {"Cell": len(after)}
    assert found["settings"]["class_map"] == str(renamed)
    third, _ = run(replace(config, class_map=str(renamed)))
    assert third.skipped == ["stated"]
    assert main(["export", str(config.output_folder), "--format", "csv"]) == 0
    assert "Cell" in (config.output_folder / "stated.csv").read_text()
    back, _ = run(config)
    assert set(back.done) == {"stated"}
    assert json.loads((config.output_folder / "stated.geojson").read_text())["features"] == before


def test_what_was_passed_over_stands_in_the_report(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "slides" / "stated_thumbnail.jpg").write_bytes(b"x")
    (tmp_path / "slides" / "scan.vsi").write_bytes(b"x")
    words = [
        "run",
        str(tmp_path / "slides"),
        "--out",
        config.out,
        "--model",
        config.model,
        "--quiet",
        "--device",
        "cpu",
    ]
    assert main([str(word) for word in words]) == 1  # silent.tif has no scale
    page = (config.output_folder / "report.html").read_text()
    assert "passed over 1 (thumbnail, label or preview by its name): stated_thumbnail.jpg" in page
    assert "passed over 1 (.vsi: no installed reader opens it): scan.vsi" in page
