"""Fifty kills of each kind during runs over several slides: the results are those of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nuclix.engine.batch import BatchOptions, StopFlag, run_batch
from overnight import Notebook, leftovers, make_model, make_slide, nuclix, results, run_options, settings_for
from torment import kill_group, kill_workers, terminate_group, torment

pytestmark = pytest.mark.slow

KILLS = 50
SIZES = ((1600, 1100), (1300, 900), (700, 1500), (300, 300))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed, (height, width) in enumerate(SIZES):
        make_slide(folder / f"{seed}.tif", seed, height, width)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    run_batch([str(slides)], settings_for(out, model), BatchOptions(("cpu",)), Notebook(), StopFlag())
    found = results(out)
    assert len(found) == len(SIZES)
    return found


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize(
    ("kill", "allowed"),
    [(kill_group, {-signal.SIGKILL}), (terminate_group, {128 + signal.SIGTERM, -signal.SIGTERM})],
    ids=["kill", "terminate"],
)
def test_killed_with_all_its_workers(
    kill, allowed: set[int], devices: str, slides: Path, model: Path, undisturbed: dict[str, str], tmp_path: Path, say
) -> None:
    command = ["run", slides, *run_options(tmp_path / "out", model), "--devices", devices]
    found = torment(command, tmp_path / "out", KILLS, kill, random.Random(devices), allowed, pace=0.4)
    say(f"{found.kills} kills in {found.rounds} rounds, {len(found.completions)} runs completed; {dict(found.moments)}")
    assert all(completion == undisturbed for completion in found.completions) and not found.remains


def test_killed_workers(
    slides: Path, model: Path, undisturbed: dict[str, str], tmp_path: Path, say: Callable[[str], None]
) -> None:
    pick, killed, runs = random.Random(7), 0, 0
    while killed < KILLS:
        process = nuclix("run", slides, *run_options(tmp_path / "out", model))
        killed += kill_workers(process, tmp_path / "out", KILLS - killed, pick)
        runs += 1
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert results(tmp_path / "out") == undisturbed and leftovers(tmp_path / "out") == []
        shutil.rmtree(tmp_path / "out")
    say(f"{killed} workers killed in {runs} runs, all completed")
