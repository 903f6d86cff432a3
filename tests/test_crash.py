"""Killed at any moment and started again, a run ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from crash_harness import kill_group, kill_repeatedly, kill_workers, terminate_group
from end_to_end import LONG, RecordingObserver, config_for, make_model, make_slide, nuclix, results, run_options
from nuclix.engine.batch.run_state import StopFlag
from nuclix.engine.batch.runner import run_batch

KILLS = 2  # while a worker is at work


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    make_slide(folder / "a.tif", 1, 900, 500)
    make_slide(folder / "sub" / "b.tif", 2, 600, 400)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    run_batch(config_for(out, model, slides), RecordingObserver(), StopFlag())
    found = results(out)
    assert set(found) == {"a.geojson", "sub/b.geojson"}
    return found


@pytest.mark.parametrize(
    ("kill", "allowed"),
    [
        (kill_group, {-signal.SIGKILL}),
        pytest.param(terminate_group, {128 + signal.SIGTERM, -signal.SIGTERM}, marks=pytest.mark.slow),
    ],
    ids=["kill", "terminate"],
)
def test_killed_with_all_its_workers(
    kill, allowed: set[int], slides: Path, model: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    command = ["run", slides, *run_options(tmp_path / "out", model)]
    found = kill_repeatedly(command, tmp_path / "out", KILLS, kill, random.Random(5), allowed)
    assert found.kills == KILLS and found.completions and not found.remains
    assert all(completion == undisturbed for completion in found.completions)


@pytest.mark.slow  # at random moments; test_worker.py kills them at a chosen one
def test_killed_workers_cost_a_row(slides: Path, model: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    for attempt in range(8):  # a fast machine may be done before it is hit
        out = tmp_path / f"out{attempt}"
        process = nuclix("run", slides, *run_options(out, model))
        kill_workers(process, out, KILLS, random.Random(attempt))
        _, errors = process.communicate(timeout=LONG)
        assert process.returncode == 0, errors
        assert results(out) == undisturbed
        if "its worker was lost (killed by SIGKILL" in errors:
            return
    pytest.fail("no kill met a slide in work")
