"""A real run from the command line, and what it leaves to be looked at."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from end_to_end import BLOCK, make_model, make_slide, nuclix, nuclix_here, wait_until
from nuclix.engine.batch.layout import report_path
from nuclix.engine.cli.main import main
from nuclix.engine.config_file import config_as_toml
from nuclix.engine.report.collect import collect
from nuclix.engine.run_config import RunConfig, config_as_json
from nuclix.engine.segmentation.summary import read_summary

NAMELESS = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a run over good and bad slides that was told everything by a file."""
    folder = tmp_path_factory.mktemp("run")
    make_slide(folder / "slides" / "one.tif", 1)
    make_slide(folder / "slides" / "sub" / f"{NAMELESS}.tif", 2, 300, 500)
    (folder / "slides" / "notes.svs").write_text("no slide")
    config = RunConfig(
        inputs=(str(folder / "slides"),),
        out=str(folder / "out"),
        model=str(make_model(folder / "red.pt")),
        device="cpu",
        block=BLOCK,
        threads=1,
        json_log=str(folder / "events.jsonl"),
    )
    (folder / "run.toml").write_text(config_as_toml(config))
    (folder / "config.json").write_text(json.dumps(config_as_json(config)))
    end = nuclix_here("run", "--config", folder / "run.toml")
    (folder / "stdout").write_text(end.said + end.errors)
    assert end.code == 1
    return folder


def test_all_that_is_to_be_seen_is_there(finished: Path) -> None:
    out = finished / "out"
    facts = collect(out)
    assert [(slide.name, slide.state) for slide in facts.slides if slide.name != f"sub/{NAMELESS}"] == [
        ("notes", "failed"),
        ("one", "done"),
    ]
    for slide in facts.slides:
        if slide.state == "done":
            features = json.loads((out / slide.output).read_bytes())["features"]
            summary = read_summary(report_path(out, slide.name, ".npz"))
            assert summary is not None and summary.counts.sum() == len(features) == slide.nuclei > 50
            areas = [feature["properties"]["measurements"]["Area µm^2"] for feature in features]
            assert summary.area_sum == pytest.approx(np.sum(areas), rel=1e-5)  # the file has five digits
            assert report_path(out, slide.name, ".jpg").is_file()
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") == page.count('class="density"') == 2
    assert "Finished, 1 of 3 slides failed" in page


def test_the_record_holds_the_whole_configuration(finished: Path) -> None:
    record = json.loads((finished / "out" / "one.json").read_text())
    assert record["settings"] == json.loads((finished / "config.json").read_text())
    assert record["counts"]["pixels_resumed"] == 0 and "thumbnail" in record["seconds"]


def test_events_and_log_tell_the_same(finished: Path) -> None:
    told = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    kinds = [item["event"] for item in told]
    assert kinds[0] == "run_started" and kinds[-1] == "run_ended"
    assert kinds.count("slide_done") == 2 and kinds.count("slide_failed") == 1
    log = (finished / "out" / "run.log").read_text()
    assert "notes.svs" in log and "run ended (completed)" in log
    said = (finished / "stdout").read_text()
    assert "2 done, 1 failed" in said and "notes: failed: " in said


def test_its_status_and_report_can_be_asked_for(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished / "out"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["state"] == "finished" and facts["slides"] == {"total": 3, "failed": 1, "done": 2}
    assert main(["status", str(finished / "out")]) == 0
    assert main(["report", str(finished / "out"), "--to", str(finished / "again.html")]) == 0
    assert (finished / "again.html").stat().st_size > 10_000


def test_a_run_can_be_watched_and_a_stopped_one_has_its_report(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = finished, finished / "stopped"
    make_slide(folder / "large" / "large.tif", 3, 3000, 1200)
    process = nuclix("run", folder / "large", "--config", folder / "run.toml", "--out", out, "--json-log", "none")

    def state() -> dict[str, object]:
        return json.loads(capsys.readouterr().out) if main(["status", str(out), "--json"]) == 0 else {}

    def active() -> bool:
        found = state()
        run = found.get("run")
        return found.get("state") == "running" and isinstance(run, dict) and bool(run["progress"]["active"])

    wait_until(lambda: active() and report_path(out, "large", ".jpg").is_file())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert state()["state"] == "stopped"
    page = (out / "report.html").read_text()
    assert "Not finished: 1 of 1 slides left" in page and "SIGTERM received" in page
    # A signal is heeded during the tissue search too, before the thumbnail is made.
    assert page.count("data:image/jpeg") == report_path(out, "large", ".jpg").is_file()
