"""Signals, limits and exit codes of ``nuclix run``, seen from the shell."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from crash_harness import committed_rows, listed
from end_to_end import (
    LONG,
    children_of,
    install_faults,
    is_worker,
    leftovers,
    make_model,
    make_slide,
    nuclix,
    nuclix_here,
    results,
    run_options,
    wait_until,
)
from nuclix.engine.batch.ledger import PENDING, RUNNING, Ledger
from nuclix.engine.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the faulty reader is installed."""
    folder = install_faults(tmp_path_factory.mktemp("faults"))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}


def states(out: Path) -> dict[str, str]:
    ledger = Ledger(out, read_only=True)
    found = {row.name: row.state for row in ledger.rows()}
    ledger.close()
    return found


def begun(out: Path) -> bool:
    return bool(listed(out, ".*.checkpoint/0*/first.bin"))


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_first_signal_finishes_the_row_and_says_how_to_go_on(number: int, model: Path, tmp_path: Path) -> None:
    make_slide(tmp_path / "slides" / "a.tif", 1, 1600, 900)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model)]
    process = nuclix(*command)
    wait_until(lambda: committed_rows(tmp_path / "out") > 1)
    os.killpg(process.pid, number)  # workers, too, as from a terminal or a batch system
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 128 + number
    assert "stopping after the current row" in errors
    assert f"stopped: {signal.Signals(number).name} received; the same command resumes" in errors
    assert states(tmp_path / "out") == {"a": PENDING} and committed_rows(tmp_path / "out") > 1
    assert not (tmp_path / "out" / ".nuclix.lock").exists()


def test_the_second_signal_ends_a_run_that_hangs(model: Path, tmp_path: Path, faults: dict[str, str]) -> None:
    make_slide(tmp_path / "slides" / "hang-once.tif", 1)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model)]
    process = nuclix(*command, environment=faults)
    wait_until((tmp_path / "slides" / "hang-once.happened").exists)
    workers = [pid for pid in children_of(process.pid) if is_worker(pid)]
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "stopped immediately; the same command resumes" in errors
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert states(tmp_path / "out") == {"hang-once": RUNNING}
    end = nuclix_here(*command)  # the slide's own reader will do
    assert end.code == 0, end.errors
    assert len(results(tmp_path / "out")) == 1 and leftovers(tmp_path / "out") == []


def test_the_time_limit_holds_even_if_a_slide_hangs(model: Path, tmp_path: Path, faults: dict[str, str]) -> None:
    make_slide(tmp_path / "slides" / "hang-always.tif", 1)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model), "--time-limit", 6]
    process = nuclix(*command, environment=faults)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 75, errors
    assert "stopped: the time limit of 6 s is reached; the same command resumes" in errors


@pytest.mark.slow  # the clock that it takes for this is tested by itself, and the end by the limit above
def test_the_time_limit_leaves_a_slide_after_a_row(model: Path, tmp_path: Path, faults: dict[str, str]) -> None:
    make_slide(tmp_path / "slides" / "slow-always.tif", 1, 1000, 380)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model)]
    process = nuclix(*command, "--time-limit", 6, environment=faults)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 75, errors
    assert "stopped: the time limit of 6 s " in errors and "the same command resumes" in errors
    assert states(tmp_path / "out") == {"slow-always": PENDING} and results(tmp_path / "out") == {}
    end = nuclix_here(*command)
    assert end.code == 0, end.errors
    assert len(results(tmp_path / "out")) == 1 and leftovers(tmp_path / "out") == []


def test_slides_that_fail_are_exit_code_1_and_75_with_fail_fast(model: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    for name in "ab":
        (tmp_path / "slides" / f"{name}.svs").write_text("no slide\n" * 99)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model)]
    end = nuclix_here(*command)
    assert end.code == 1 and "2 failed" in end.said
    assert end.errors.count("not an image") >= 2
    end = nuclix_here(*command, "--fail-fast")
    assert end.code == 75 and "1 failed" in end.said and "--fail-fast" in end.errors


def test_a_second_run_in_the_folder_is_refused(model: Path, tmp_path: Path, faults: dict[str, str]) -> None:
    make_slide(tmp_path / "slides" / "hang-always.tif", 1)
    command = ["run", tmp_path / "slides", *run_options(tmp_path / "out", model)]
    first = nuclix(*command, environment=faults)
    wait_until(lambda: begun(tmp_path / "out"))
    second = nuclix_here(*command)
    assert second.code == 2
    assert f"process {first.pid}" in second.errors and "another nuclix run is using" in second.errors
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.svs"], "no such file"),
        (["a.tif", "--model", "nothing"], "no model 'nothing'"),
        (["a.tif", "--out", "/proc/nuclix"], "can't be written"),
    ],
)
def test_wrong_usage_is_exit_code_2_at_once(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_slide(tmp_path / "a.tif")
    make_model(tmp_path / "red.pt")
    assert main(["run", "--out", "out", "--model", "red.pt", *arguments]) == 2
    assert said in capsys.readouterr().err
