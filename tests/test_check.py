"""A forecast says what the run then does, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from end_to_end import RecordingObserver, config_for, make_model, make_slide, run_options
from nuclix.engine.batch.check import COMPUTE, DONE, REFUSED, STALE, forecast
from nuclix.engine.batch.run_state import StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.cli.main import main
from nuclix.engine.run_config import RunConfig


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    make_slide(tmp_path / "slides" / "a.tif", 1, mpp=0.5)
    make_slide(tmp_path / "slides" / "silent.tif", 2, mpp=None)
    (tmp_path / "slides" / "broken.svs").write_text("no image")
    (tmp_path / "slides" / "b.vsi").write_bytes(b"preview")
    return config_for(tmp_path / "out", make_model(tmp_path / "red.pt"), tmp_path / "slides")


def test_a_forecast_says_what_the_run_then_does(config: RunConfig, tmp_path: Path) -> None:
    before = {slide.name: slide for slide in forecast(config).slides}
    assert not config.output_folder.exists()
    assert {name: slide.action for name, slide in before.items()} == {
        "a": COMPUTE, "broken": REFUSED, "silent": REFUSED,
    }  # fmt: skip
    assert (before["a"].width, before["a"].height, before["a"].mpp) == (380, 420, 0.5) and before["a"].seconds is None
    assert "states no scale; give it with --mpp" in before["silent"].reason
    assert "not an image" in before["broken"].reason
    summary = run_batch(config, RecordingObserver(), StopFlag())
    assert set(summary.done) == {"a"} and set(summary.failed) == {"broken", "silent"}
    assert summary.done["a"].counts["tiles_total"] == before["a"].tiles
    after = {slide.name: slide for slide in forecast(config).slides}
    assert after["a"].action == DONE
    other = RunConfig(**{**{name: getattr(config, name) for name in RunConfig.__dataclass_fields__}, "tta": True})
    again = {slide.name: slide for slide in forecast(other).slides}
    assert again["a"].action == STALE and again["a"].seconds and "another tta" in again["a"].reason


def test_the_command_lists_every_slide_and_what_is_passed_over(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(word) for word in (tmp_path / "slides", *run_options(tmp_path / "out", tmp_path / "red.pt"))]
    assert main(["check", *options]) == 1
    shown = capsys.readouterr().out
    assert "passed over 1 (.vsi: no installed reader opens it): b.vsi" in shown
    assert "3 slides: 1 compute, 2 refused" in shown and "380 x 420" in shown
    assert main(["run", *options, "--dry-run", "--mpp", "0.25"]) == 1
    assert "2 compute, 1 refused" in capsys.readouterr().out
    assert main(["check", *options, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["slides"][0]["action"] == "compute"
    assert not (tmp_path / "out").exists()
