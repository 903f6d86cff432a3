"""Worker processes: what they make of a slide that fails, and what becomes of the run when they die."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from end_to_end import (
    RecordingObserver,
    children_of,
    config_for,
    install_faults,
    is_worker,
    leftovers,
    make_model,
    make_slide,
    nuclix,
    results,
    run_options,
    wait_until,
)
from nuclix.engine.batch import worker
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import Failed, FromWorker, OutputUnavailable, Stopped, WorkerFailed
from nuclix.engine.batch.ledger import FAILED, Ledger
from nuclix.engine.batch.processes import ProcessExecutor
from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.batch.worker import RowClock, process_slide
from nuclix.engine.errors import DeviceError, Interrupted, OutputError, SlideError, UsageError
from nuclix.engine.run_config import RunConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(
    slides: Path, out: Path, model: Path, options: dict[str, Any], notes: RecordingObserver | None = None
) -> RunSummary:
    return run_batch(replace(config_for(out, model, slides), **options), notes or RecordingObserver(), StopFlag())


def output_error(number: int) -> OutputError:
    error = OutputError("x: can't be written")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (Interrupted("stopped"), Stopped()),
        (SlideError("a: bad"), Failed("a: bad")),
        (output_error(errno.ENOSPC), OutputUnavailable("x: can't be written")),
        (output_error(errno.ESTALE), OutputUnavailable("x: can't be written", transient=True)),
        (output_error(errno.ENAMETOOLONG), Failed("x: can't be written")),
        (output_error(errno.EFBIG), Failed("x: can't be written")),
        (OutputError("a writer of its own"), Failed("a writer of its own")),
    ],
)
def test_what_a_slide_raises_becomes_what_the_run_needs_to_know(
    raised: Exception, message: FromWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempted(raised, monkeypatch) == message


def attempted(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> FromWorker:
    def segment_slide(*_: object) -> None:
        raise raised

    monkeypatch.setattr(worker, "segment_slide", segment_slide)
    shared = SimpleNamespace(config=RunConfig(out="out"))
    return process_slide(SlideJob(Path("a.svs"), PurePosixPath("a")), shared, None)  # type: ignore[arg-type]


def test_a_plugins_exception_brings_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    message = attempted(KeyError("maps"), monkeypatch)
    assert isinstance(message, Failed) and message.message.startswith("a.svs: unexpected KeyError: 'maps'")
    assert "in segment_slide" in message.traceback


@pytest.mark.parametrize("raised", [MemoryError("7 GB"), MemoryError(), DeviceError("cuda:0 failed: CUDA error")])
def test_a_process_without_memory_or_device_is_replaced(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    message = attempted(raised, monkeypatch)
    assert isinstance(message, WorkerFailed) and message.traceback
    assert ("CUDA error" if isinstance(raised, DeviceError) else "out of memory") in message.reason


def test_the_row_clock_leaves_time_for_a_row_like_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(worker.time, "time", lambda: now[0])
    clock = RowClock(1100.0)
    said = []
    for seconds in (10, 30, 10, 10, 10, 10):
        now[0] += seconds
        said.append(clock.is_up())
    assert said == [False, False, False, False, False, True]


@pytest.mark.usefixtures("one_thread")
def test_faults_of_every_kind_cost_what_they_must_and_the_others_are_as_ever(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run over good slides and over slides whose reader crashes, hangs, raises or runs out of memory."""
    monkeypatch.syspath_prepend(str(install_faults(tmp_path / "faults")))
    names = ["good", "segv-once", "oom-once", "memory-once", "raise-always", "hang-always"]
    for seed, name in enumerate(names):
        make_slide(tmp_path / "slides" / f"{name}.tif", seed)
    make_slide(tmp_path / "slides" / "no-scale.tif", 9, mpp=None)
    (tmp_path / "slides" / "text.svs").write_text("no slide at all\n" * 100)
    notes = RecordingObserver()
    summary = run(tmp_path / "slides", tmp_path / "out", model, {"stall_timeout": 6.0}, notes)
    assert set(summary.done) == {"good", "segv-once", "oom-once", "memory-once"} and not summary.stopped
    assert set(summary.failed) == {"raise-always", "hang-always", "no-scale", "text"}
    assert "unexpected ZeroDivisionError: broken plugin" in summary.failed["raise-always"]
    assert "no progress for 6 s" in summary.failed["hang-always"]
    assert "--mpp" in summary.failed["no-scale"] and "not an image" in summary.failed["text"]
    said = "\n".join(notes.notices)
    for words in (
        "segv-once.tif: its worker was lost (killed by SIGSEGV)",
        "memory runs out",
        "out of memory: no room",
    ):
        assert words in said
    ledger = Ledger(tmp_path / "out", read_only=True)
    assert {row.name for row in ledger.rows() if row.state == FAILED and row.error} == set(summary.failed)
    ledger.close()
    assert "Segmentation fault" in (tmp_path / "out" / "run.log").read_text()
    assert summary.done["segv-once"].counts["rows_resumed"] > 0

    for path in (tmp_path / "slides").glob("*-once.tif"):  # the markers say that it has happened
        path.with_suffix(".happened").touch()
    for name in ("raise-always", "hang-always", "no-scale"):
        (tmp_path / "slides" / f"{name}.tif").unlink()
    (tmp_path / "slides" / "text.svs").unlink()
    two = run(tmp_path / "slides", tmp_path / "calm", model, {"devices": ("cpu", "cpu")})
    assert set(two.done) == {"good", "segv-once", "oom-once", "memory-once"}
    assert results(tmp_path / "calm") == results(tmp_path / "out")
    assert leftovers(tmp_path / "calm") == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda:7"}, "no device 'cuda:7'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_a_worker_that_can_not_start_is_wrong_usage(tmp_path: Path, model: Path, change: dict, said: str) -> None:
    make_slide(tmp_path / "a.tif")
    config = replace(config_for(tmp_path / "out", model, tmp_path), **change)
    with pytest.raises(UsageError, match=said):
        run_batch(config, RecordingObserver(), StopFlag())
    assert leftovers(tmp_path / "out") == []


def test_a_model_that_is_not_there_is_wrong_usage_before_any_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slide(tmp_path / "a.tif")
    monkeypatch.setattr(ProcessExecutor, "_start", None)
    with pytest.raises(UsageError, match="nothing here"):
        run(tmp_path, tmp_path / "out", Path("nothing here"), {})


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, model: Path) -> None:
    for seed in range(2):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 1500, 1000)
    options = run_options(tmp_path / "out", model)
    process = nuclix("run", tmp_path / "slides", *options, "--devices", "cpu,cpu")
    wait_until(lambda: len(list(tmp_path.glob("out/.*.checkpoint"))) == 2)
    workers = [pid for pid in children_of(process.pid) if is_worker(pid)]
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
