"""What a run does about slides that are done, fail, kill their workers or stand in the way; who works is made up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from end_to_end import RecordingObserver
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import (
    Done,
    Failed,
    Notice,
    OutputUnavailable,
    RunContext,
    SlideEvent,
    SlideProgress,
    SlideStarted,
    Stopped,
    WorkerLost,
)
from nuclix.engine.batch.layout import LOCK_NAME
from nuclix.engine.batch.ledger import DONE, FAILED, PENDING, Ledger
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.batch.resume import SlideCheck
from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.runner import BatchRunner
from nuclix.engine.errors import OutputError
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.segmentation.record import SlideRecord
from nuclix.engine.segmentation.slide_files import SlideOutcome

Script = dict[str, list[list[SlideEvent]]]


class FakeExecutor:
    """One worker that says what a script holds: for every slide a list of events for each time it is handed out."""

    def __init__(self, script: Script) -> None:
        self.script = {name: list(times) for name, times in script.items()}
        self.handed: list[str] = []
        self.events: list[tuple[SlideJob, SlideEvent] | Notice] = []
        self.stopped = False
        self.alive = True

    def wants(self) -> bool:
        return not self.events and not self.stopped

    def is_alive(self) -> bool:
        return self.alive

    def submit(self, job: SlideJob) -> None:
        self.handed.append(str(job.name))
        self.events.append((job, SlideStarted("here")))
        self.events += [(job, event) for event in self.script[str(job.name)].pop(0)]

    def poll(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        if not self.events:
            time.sleep(0.01)
        events, self.events = self.events, []
        yield from events

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


def fingerprint_of(name: str) -> str:
    return f"fingerprint of {name}"


def done(name: str) -> Done:
    record = SlideRecord({"fingerprint": fingerprint_of(name)}, {}, {}, {"wall": 1.0}, {"nuclei": 3}, [])
    return Done(SlideOutcome(f"{name}.geojson", "sum", record))


def came_to(row: int) -> SlideProgress:
    return SlideProgress(Progress(1, 9, 1, 0, row))


class Trial:
    """A run over made-up slides."""

    def __init__(self, out: Path, script: Script, options: dict[str, Any] | None = None) -> None:
        self.out = out
        self.executor = FakeExecutor(script)
        self.notes = RecordingObserver()
        self.flag = StopFlag()
        self.config = RunConfig(out=str(out), **(options or {}))
        self.slides = [
            SlideCheck(SlideJob(out / f"{name}.svs", PurePosixPath(name)), 100 - at, fingerprint_of(name))
            for at, name in enumerate(script)
        ]
        self.deadline = float("inf")

    def run(self, during: Callable[[FolderLock], None] = lambda lock: None) -> RunSummary:
        context = RunContext(self.config, time.time(), self.deadline)
        with FolderLock(self.out) as lock:
            ledger = Ledger(self.out)
            during(lock)
            try:
                return BatchRunner(context, self.executor, ledger, lock, self.notes, self.flag).run(self.slides)
            finally:
                ledger.close()

    def states(self) -> dict[str, str]:
        ledger = Ledger(self.out, read_only=True)
        found = {row.name: row.state for row in ledger.rows()}
        ledger.close()
        return found


def test_the_biggest_slides_go_first(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {name: [[done(name)]] for name in "abc"})
    trial.slides.reverse()
    summary = trial.run()
    assert trial.executor.handed == ["a", "b", "c"]
    assert set(summary.done) == {"a", "b", "c"} and not summary.failed and not summary.stopped
    assert set(trial.states().values()) == {DONE}


def test_a_slide_that_fails_is_booked_and_the_others_go_on(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[Failed("a.svs: no scale", "Traceback")]], "b": [[done("b")]]})
    summary = trial.run()
    assert summary.failed == {"a": "a.svs: no scale"} and set(summary.done) == {"b"}
    assert trial.states() == {"a": FAILED, "b": DONE}
    assert trial.notes.failures == {"a": "a.svs: no scale"}


@pytest.mark.parametrize(("retry", "tries"), [(0, 1), (1, 2), (2, 3)])
def test_retry_tries_again_so_often_and_after_all_others(tmp_path: Path, retry: int, tries: int) -> None:
    trial = Trial(tmp_path, {"a": [[Failed("no")]] * 3, "b": [[done("b")]]}, {"retry": retry})
    summary = trial.run()
    assert trial.executor.handed == ["a", "b"] + ["a"] * (tries - 1)
    assert summary.failed == {"a": "no"}
    assert Ledger(tmp_path).row("a").attempts == tries


def test_a_retry_that_works_is_no_failure(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[Failed("no")], [done("a")]]}, {"retry": 1})
    summary = trial.run()
    assert not summary.failed and set(summary.done) == {"a"}
    assert trial.notes.names("failed") == []
    assert "trying again" in trial.notes.notices[0]


def test_a_slide_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    crash = [came_to(2), WorkerLost("killed by SIGSEGV")]
    trial = Trial(tmp_path, {"a": [crash] * 9, "b": [[done("b")]]})
    summary = trial.run()
    assert trial.executor.handed == ["a", "a", "a", "b"]
    assert "3 times" in summary.failed["a"] and "SIGSEGV" in summary.failed["a"]
    assert trial.states() == {"a": FAILED, "b": DONE}


def test_crashes_with_progress_between_them_are_not_held_against_a_slide(tmp_path: Path) -> None:
    times: list[list[SlideEvent]] = [[came_to(row), WorkerLost("killed")] for row in (1, 2, 2, 3, 4, 5)]
    trial = Trial(tmp_path, {"a": [*times, [done("a")]]})
    assert set(trial.run().done) == {"a"}
    assert len(trial.executor.handed) == 7


def test_fail_fast_stops_the_others_after_their_row(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[Failed("no")]], "b": [[done("b")]]}, {"fail_fast": True})
    summary = trial.run()
    assert trial.executor.handed == ["a"] and trial.executor.stopped
    assert "--fail-fast" in summary.stopped and not summary.blocked
    assert trial.states() == {"a": FAILED, "b": PENDING}


def test_a_request_to_stop_waits_for_the_slide_in_work(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[came_to(1), Stopped()]], "b": [[done("b")]]})
    trial.notes.on_progress = lambda: setattr(trial.flag, "reason", "SIGTERM received")
    summary = trial.run()
    assert summary.stopped == "SIGTERM received"
    assert trial.states() == {"a": PENDING, "b": PENDING}
    assert trial.notes.names("stopped") == ["a"]


def test_a_worker_that_dies_while_stopping_costs_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[WorkerLost("killed")]]})
    trial.flag.reason = "SIGINT received"
    trial.executor.wants = lambda: not trial.executor.handed  # type: ignore[method-assign]
    trial.executor.submit(trial.slides[0].job)
    assert trial.run().stopped == "SIGINT received"
    assert trial.states() == {"a": PENDING}


def test_a_disk_that_is_full_stops_the_run_and_fails_no_slide(tmp_path: Path) -> None:
    trial = Trial(
        tmp_path, {"a": [[OutputUnavailable("a.checkpoint: can't be written: No space left")]], "b": [[done("b")]]}
    )
    summary = trial.run()
    assert trial.executor.handed == ["a"]
    assert summary.blocked and "No space left" in summary.stopped and not summary.failed
    assert trial.states() == {"a": PENDING, "b": PENDING}


def test_the_run_ends_at_its_time_limit_whatever_is_in_work(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[came_to(1)]]}, {"time_limit": 0.3})
    trial.deadline = time.time() + 0.3
    summary = trial.run()
    assert "time limit of 0.3 s is reached" in summary.stopped
    assert trial.states() == {"a": PENDING}


def test_too_little_time_for_another_row_stops_the_run(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[Stopped()]], "b": [[done("b")]]}, {"time_limit": 60})
    assert "another row" in trial.run().stopped
    assert trial.states() == {"a": PENDING, "b": PENDING}


def test_without_a_worker_the_run_ends(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[came_to(1)]]})
    trial.executor.alive = False
    summary = trial.run()
    assert summary.stopped == "no worker is left" and summary.blocked


@pytest.mark.parametrize("how", ["gone", "another's"])
def test_a_folder_that_is_not_this_runs_any_more_ends_it(tmp_path: Path, how: str) -> None:
    trial = Trial(tmp_path, {"a": [[came_to(1)]]})

    def meddle(lock: FolderLock) -> None:
        lock_file = tmp_path / LOCK_NAME
        content = json.loads(lock_file.read_text())
        lock_file.unlink()
        if how == "another's":
            lock_file.write_text(json.dumps({**content, "pid": 1}))
        trial.notes.on_progress = lambda: setattr(trial.executor, "alive", False)

    summary = trial.run(meddle)
    assert summary.blocked and "taken it over" in summary.stopped
    assert (tmp_path / LOCK_NAME).exists() == (how == "another's")


def test_a_slide_that_changed_under_the_run_has_failed(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[done("b")]]})
    assert "was changed" in trial.run().failed["a"]


def test_a_slide_that_can_not_be_looked_at_is_not_handed_out(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [], "b": [[done("b")]]}, {"retry": 3})
    trial.slides[0] = SlideCheck(trial.slides[0].job, error="a.svs: is empty")
    summary = trial.run()
    assert summary.failed == {"a": "a.svs: is empty"} and trial.executor.handed == ["b"]


def test_late_news_of_a_slide_is_ignored(tmp_path: Path) -> None:
    trial = Trial(tmp_path, {"a": [[done("a"), Failed("too late")]], "b": [[done("b")]]})
    summary = trial.run()
    assert set(summary.done) == {"a", "b"} and not summary.failed


def test_a_ledger_that_can_not_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(tmp_path, {"a": [[done("a")]]})

    def full(*_: object) -> None:
        raise OutputError("nuclix.db: the ledger can't be used: database or disk is full")

    monkeypatch.setattr(Ledger, "finish", full)
    summary = trial.run()
    assert summary.blocked and "disk is full" in summary.stopped and not summary.done
    monkeypatch.undo()
    trial = Trial(tmp_path, {"a": [[done("a")]]})
    assert set(trial.run().done) == {"a"}


@pytest.mark.parametrize("kind", [Failed, OutputUnavailable])
def test_a_transient_error_is_retried_after_a_pause_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Failed] | type[OutputUnavailable]
) -> None:
    from nuclix.engine.batch import runner

    monkeypatch.setattr(runner, "BACK_OFF", (0.05, 0.1))
    stale = kind("a.svs: can't be read (Stale file handle)", transient=True)
    trial = Trial(tmp_path, {"a": [[stale], [stale], [done("a")]], "b": [[done("b")]]})
    summary = trial.run()
    assert set(summary.done) == {"a", "b"} and not summary.failed and not summary.stopped
    assert trial.notes.notices == [
        "a.svs: can't be read (Stale file handle); trying again in 0.05 s (1 of 2)",
        "a.svs: can't be read (Stale file handle); trying again in 0.1 s (2 of 2)",
    ]


def test_a_transient_error_that_stays_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nuclix.engine.batch import runner

    monkeypatch.setattr(runner, "BACK_OFF", (0.01,))
    stale = Failed("a.svs: can't be read (Stale file handle)", transient=True)
    summary = Trial(tmp_path, {"a": [[stale], [stale]]}).run()
    assert summary.failed == {"a": stale.message}
    gone = OutputUnavailable("a.json: can't be written: Input/output error", transient=True)
    summary = Trial(tmp_path / "..", {"b": [[gone], [gone]]}).run()
    assert summary.blocked and "Input/output error" in summary.stopped
