"""Fifty kills of each kind during runs over several slides: the results are those of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crash_harness import kill_group, kill_repeatedly, kill_workers, terminate_group
from end_to_end import RecordingObserver, config_for, leftovers, make_model, make_slide, nuclix, results, run_options
from nuclix.engine.batch.run_state import StopFlag
from nuclix.engine.batch.runner import run_batch

pytestmark = pytest.mark.slow

KILLS = 50
PACE = 2.5  # kills a second at work: most runs get a few rows further and few get through
SIZES = ((2400, 1600), (1800, 2200), (2600, 1400), (1600, 1100), (2000, 1800), (1300, 900), (700, 1500), (300, 300))


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
    run_batch(config_for(out, model, slides), RecordingObserver(), StopFlag())
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
    found = kill_repeatedly(command, tmp_path / "out", KILLS, kill, random.Random(devices), allowed, pace=PACE)
    say(str(found))
    assert found.completions and all(completion == undisturbed for completion in found.completions)
    assert found.remains == [] and found.resumed > 0


def test_killed_workers(
    slides: Path, model: Path, undisturbed: dict[str, str], tmp_path: Path, say: Callable[[str], None]
) -> None:
    pick, begin, runs = random.Random(7), time.monotonic(), 0
    moments: Counter[str] = Counter()
    while moments.total() < KILLS:
        process = nuclix("run", slides, *run_options(tmp_path / "out", model))
        moments += kill_workers(process, tmp_path / "out", KILLS - moments.total(), pick)
        runs += 1
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert results(tmp_path / "out") == undisturbed and leftovers(tmp_path / "out") == []
        shutil.rmtree(tmp_path / "out")
    said = ", ".join(f"{count} {moment}" for moment, count in moments.most_common())
    say(f"{KILLS} workers killed ({said}) in {runs} runs, all completed; {time.monotonic() - begin:.0f} s")
