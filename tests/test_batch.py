"""What a run does about slides that are done, fail, kill their workers or stand in the way; who works is made up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch import Batch, BatchOptions, Desk, RunSummary, StopFlag
from nuclix.engine.crew import CrewTerms
from nuclix.engine.errors import OutputError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.ledger import DONE, FAILED, PENDING, Ledger
from nuclix.engine.lock import LOCK_NAME, FolderLock
from nuclix.engine.messages import Advanced, Begun, Blocked, Done, Failed, Lost, Notice, SlideEvent, Stopped
from nuclix.engine.pipeline import Progress
from nuclix.engine.plan import SlidePlan
from nuclix.engine.record import SlideRecord
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide_run import SlideOutcome
from overnight import Notebook

Script = dict[str, list[list[SlideEvent]]]


class MadeUpCrew:
    """One worker that says what a script holds: for every slide a list of events for each time it is handed out."""

    def __init__(self, script: Script) -> None:
        self.script = {name: list(times) for name, times in script.items()}
        self.handed: list[str] = []
        self.events: list[tuple[SlideJob, SlideEvent] | Notice] = []
        self.stopped = False
        self.alive = True

    def wants(self) -> bool:
        return not self.events and not self.stopped

    def lives(self) -> bool:
        return self.alive

    def hand_out(self, job: SlideJob) -> None:
        self.handed.append(str(job.name))
        self.events.append((job, Begun("here")))
        self.events += [(job, event) for event in self.script[str(job.name)].pop(0)]

    def listen(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        if not self.events:
            time.sleep(0.01)
        events, self.events = self.events, []
        yield from events

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


def mark_of(name: str) -> str:
    return f"mark of {name}"


def done(name: str) -> Done:
    record = SlideRecord({"fingerprint": mark_of(name)}, {}, {}, {"wall": 1.0}, {"nuclei": 3}, [])
    return Done(SlideOutcome(f"{name}.geojson", "sum", record))


def came_to(row: int) -> Advanced:
    return Advanced(Progress(1, 9, 1, 0, row))


class Night:
    """A run over made-up slides."""

    def __init__(self, out: Path, script: Script, options: BatchOptions | None = None) -> None:
        self.out = out
        self.crew = MadeUpCrew(script)
        self.notes = Notebook()
        self.flag = StopFlag()
        self.options = options or BatchOptions()
        self.plans = [
            SlidePlan(SlideJob(out / f"{name}.svs", PurePosixPath(name)), 100 - at, mark_of(name), "{}")
            for at, name in enumerate(script)
        ]
        self.deadline = float("inf")

    def run(self, during: Callable[[FolderLock], None] = lambda lock: None) -> RunSummary:
        terms = CrewTerms(RunSettings(self.out), time.time(), self.deadline, 60.0)
        with FolderLock(self.out) as lock:
            ledger = Ledger(self.out)
            during(lock)
            try:
                return Batch(terms, self.options, Desk(self.crew, ledger, self.notes, self.flag, lock)).run(self.plans)
            finally:
                ledger.close()

    def states(self) -> dict[str, str]:
        ledger = Ledger(self.out, read_only=True)
        found = {row.name: row.state for row in ledger.rows()}
        ledger.close()
        return found


def test_the_biggest_slides_go_first(tmp_path: Path) -> None:
    night = Night(tmp_path, {name: [[done(name)]] for name in "abc"})
    night.plans.reverse()
    summary = night.run()
    assert night.crew.handed == ["a", "b", "c"]
    assert set(summary.done) == {"a", "b", "c"} and not summary.failed and not summary.stopped
    assert set(night.states().values()) == {DONE}


def test_a_slide_that_fails_is_booked_and_the_others_go_on(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Failed("a.svs: no scale", "Traceback")]], "b": [[done("b")]]})
    summary = night.run()
    assert summary.failed == {"a": "a.svs: no scale"} and set(summary.done) == {"b"}
    assert night.states() == {"a": FAILED, "b": DONE}
    assert night.notes.failures == {"a": "a.svs: no scale"}


@pytest.mark.parametrize(("retry", "tries"), [(0, 1), (1, 2), (2, 3)])
def test_retry_tries_again_so_often_and_after_all_others(tmp_path: Path, retry: int, tries: int) -> None:
    night = Night(tmp_path, {"a": [[Failed("no")]] * 3, "b": [[done("b")]]}, BatchOptions(retry=retry))
    summary = night.run()
    assert night.crew.handed == ["a", "b"] + ["a"] * (tries - 1)
    assert summary.failed == {"a": "no"}
    assert Ledger(tmp_path).row("a").attempts == tries


def test_a_retry_that_works_is_no_failure(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Failed("no")], [done("a")]]}, BatchOptions(retry=1))
    summary = night.run()
    assert not summary.failed and set(summary.done) == {"a"}
    assert night.notes.names("failed") == []
    assert "trying again" in night.notes.notices[0]


def test_a_slide_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    crash = [came_to(2), Lost("killed by SIGSEGV")]
    night = Night(tmp_path, {"a": [crash] * 9, "b": [[done("b")]]})
    summary = night.run()
    assert night.crew.handed == ["a", "a", "a", "b"]
    assert "3 times" in summary.failed["a"] and "SIGSEGV" in summary.failed["a"]
    assert night.states() == {"a": FAILED, "b": DONE}


def test_crashes_with_progress_between_them_are_not_held_against_a_slide(tmp_path: Path) -> None:
    times: list[list[SlideEvent]] = [[came_to(row), Lost("killed")] for row in (1, 2, 2, 3, 4, 5)]
    night = Night(tmp_path, {"a": [*times, [done("a")]]})
    assert set(night.run().done) == {"a"}
    assert len(night.crew.handed) == 7


def test_fail_fast_stops_the_others_after_their_row(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Failed("no")]], "b": [[done("b")]]}, BatchOptions(fail_fast=True))
    summary = night.run()
    assert night.crew.handed == ["a"] and night.crew.stopped
    assert "--fail-fast" in summary.stopped and not summary.blocked
    assert night.states() == {"a": FAILED, "b": PENDING}


def test_a_request_to_stop_waits_for_the_slide_in_work(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[came_to(1), Stopped()]], "b": [[done("b")]]})
    night.notes.on_progress = lambda: setattr(night.flag, "reason", "SIGTERM received")
    summary = night.run()
    assert summary.stopped == "SIGTERM received" or "row" in summary.stopped
    assert night.states() == {"a": PENDING, "b": PENDING}
    assert night.notes.names("stopped") == ["a"]


def test_a_worker_that_dies_while_stopping_costs_nothing(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Lost("killed")]]})
    night.flag.reason = "SIGINT received"
    night.crew.wants = lambda: not night.crew.handed  # type: ignore[method-assign]
    night.crew.hand_out(night.plans[0].job)
    assert night.run().stopped == "SIGINT received"
    assert night.states() == {"a": PENDING}


def test_a_disk_that_is_full_stops_the_run_and_fails_no_slide(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Blocked("a.spool: can't be written: No space left")]], "b": [[done("b")]]})
    summary = night.run()
    assert night.crew.handed == ["a"]
    assert summary.blocked and "No space left" in summary.stopped and not summary.failed
    assert night.states() == {"a": PENDING, "b": PENDING}


def test_the_run_ends_at_its_time_limit_whatever_is_in_work(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[came_to(1)]]}, BatchOptions(time_limit=0.3))
    night.deadline = time.time() + 0.3
    summary = night.run()
    assert "time limit of 0 s is reached" in summary.stopped
    assert night.states() == {"a": PENDING}


def test_too_little_time_for_another_row_stops_the_run(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[Stopped()]], "b": [[done("b")]]}, BatchOptions(time_limit=60))
    assert "another row" in night.run().stopped
    assert night.states() == {"a": PENDING, "b": PENDING}


def test_without_a_worker_the_run_ends(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[came_to(1)]]})
    night.crew.alive = False
    summary = night.run()
    assert summary.stopped == "no worker is left" and summary.blocked


@pytest.mark.parametrize("how", ["gone", "another's"])
def test_a_folder_that_is_not_this_runs_any_more_ends_it(tmp_path: Path, how: str) -> None:
    night = Night(tmp_path, {"a": [[came_to(1)]]})

    def meddle(lock: FolderLock) -> None:
        lock_file = tmp_path / LOCK_NAME
        content = json.loads(lock_file.read_text())
        lock_file.unlink()
        if how == "another's":
            lock_file.write_text(json.dumps({**content, "pid": 1}))
        night.notes.on_progress = lambda: setattr(night.crew, "alive", False)

    summary = night.run(meddle)
    assert summary.blocked and "taken it over" in summary.stopped
    assert (tmp_path / LOCK_NAME).exists() == (how == "another's")


def test_a_slide_that_changed_under_the_run_has_failed(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[done("b")]]})
    assert "was changed" in night.run().failed["a"]


def test_a_slide_that_can_not_be_looked_at_is_not_handed_out(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [], "b": [[done("b")]]}, BatchOptions(retry=3))
    night.plans[0] = SlidePlan(night.plans[0].job, error="a.svs: is empty")
    summary = night.run()
    assert summary.failed == {"a": "a.svs: is empty"} and night.crew.handed == ["b"]


def test_late_news_of_a_slide_is_ignored(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": [[done("a"), Failed("too late")]], "b": [[done("b")]]})
    summary = night.run()
    assert set(summary.done) == {"a", "b"} and not summary.failed


def test_a_ledger_that_can_not_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, {"a": [[done("a")]]})

    def full(*_: object) -> None:
        raise OutputError("nuclix.db: the ledger can't be used: database or disk is full")

    monkeypatch.setattr(Ledger, "finish", full)
    summary = night.run()
    assert summary.blocked and "disk is full" in summary.stopped and not summary.done
    monkeypatch.undo()
    night = Night(tmp_path, {"a": [[done("a")]]})
    assert set(night.run().done) == {"a"}
