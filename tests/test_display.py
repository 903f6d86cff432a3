"""What a run says while it goes: the meter's figures, bars, lines, JSON and the log."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nuclix.engine.batch import events
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.errors import OutputError, UsageError
from nuclix.engine.progress import display
from nuclix.engine.progress.display import (
    Bars,
    FailuresOnly,
    JsonLines,
    LogLines,
    PlainLines,
    RunLog,
    draw,
    sentences,
    state_of,
)
from nuclix.engine.progress.meter import RunMeter, RunSnapshot, SlideSnapshot
from nuclix.engine.progress.publisher import EventPublisher, EventSink
from nuclix.engine.progress.text import one_line, shortened
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.segmentation.record import SlideRecord

NASTY = "a\x1b[2J[red]b\n2026-01-01 00:00:00 INFO forged\udcff"


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def metered(total: int, sizes: dict[str, int], skipped: int = 0) -> tuple[RunMeter, Clock]:
    clock = Clock()
    meter = RunMeter(clock)
    meter.update(events.run_started(total, skipped, sizes))
    return meter, clock


def progress(tiles: int, total: int, nuclei: int = 0) -> Progress:
    return Progress(tiles, total, tiles * 1_000_000, nuclei)


def test_time_left_counts_tiles_of_slides_in_work_and_bytes_of_those_to_come() -> None:
    meter, clock = metered(3, {"a": 100, "b": 100, "c": 50})
    assert meter.snapshot().seconds_left is None
    meter.update(events.slide_started(job("a"), 1))
    meter.update(events.slide_progress(job("a"), progress(0, 40)))
    clock.now += 10
    meter.update(events.slide_progress(job("a"), progress(20, 40, 500)))
    now = meter.snapshot()
    # 20 tiles left of a, and b and c should have 40 and 20: 80 tiles at 2 a second.
    assert now.seconds_left == pytest.approx(40)
    assert (now.mpx_per_s, now.nuclei_per_s, now.seconds) == pytest.approx((2, 50, 10))
    meter.update(events.slide_started(job("b"), 1))
    meter.update(events.slide_progress(job("b"), progress(0, 10)))  # 50 tiles in 200 bytes: c has 12.5
    assert meter.snapshot().seconds_left == pytest.approx((20 + 10 + 12.5) / 2)
    assert [slide.name for slide in meter.snapshot().active] == ["a", "b"]


def test_between_two_slides_the_time_left_is_still_known() -> None:
    meter, clock = metered(2, {"a": 100, "b": 50})
    meter.update(events.slide_started(job("a"), 1))
    meter.update(events.slide_progress(job("a"), progress(0, 40)))
    clock.now += 20
    meter.update(events.slide_progress(job("a"), progress(40, 40)))
    meter.update(events.slide_done(job("a"), record(7)))
    assert meter.snapshot().seconds_left == pytest.approx(20 / 2)


def test_the_speed_is_that_of_the_last_minutes() -> None:
    meter, clock = metered(1, {"a": 100})
    meter.update(events.slide_started(job("a"), 1))
    for tiles in range(1000):
        meter.update(events.slide_progress(job("a"), progress(tiles, 2000, tiles)))
        clock.now += 10 if tiles < 500 else 1  # other work on the machine has ended
    now = meter.snapshot()
    assert (now.mpx_per_s, now.nuclei_per_s) == pytest.approx((1, 1), rel=0.02)
    assert now.seconds_left == pytest.approx(1001, rel=0.02)


def test_what_an_earlier_run_did_is_no_speed_of_this_one() -> None:
    meter, clock = metered(1, {"a": 100})
    meter.update(events.slide_started(job("a"), 1))
    meter.update(events.slide_progress(job("a"), progress(90, 100, 9000)))
    assert meter.snapshot().mpx_per_s == 0
    clock.now += 10
    meter.update(events.slide_progress(job("a"), progress(95, 100, 9500)))
    now = meter.snapshot()
    assert (now.mpx_per_s, now.nuclei, now.seconds_left) == pytest.approx((0.5, 500, 10))
    assert now.active[0].nuclei == 9500 and now.active[0].mpx_per_s == pytest.approx(0.5)


def test_a_lost_worker_takes_the_lost_row_with_it() -> None:
    meter, clock = metered(1, {"a": 100})
    meter.update(events.slide_started(job("a"), 1))
    meter.update(events.slide_progress(job("a"), progress(0, 100)))
    clock.now += 10
    meter.update(events.slide_progress(job("a"), progress(50, 100)))
    meter.update(events.slide_started(job("a"), 1))
    meter.update(events.slide_progress(job("a"), progress(40, 100)))  # its last committed row
    assert meter.snapshot().mpx_per_s == pytest.approx(4)
    assert len(meter.snapshot().active) == 1


def test_slides_that_end_count_and_are_no_longer_waited_for() -> None:
    meter, clock = metered(5, {"a": 100, "b": 100, "c": 100}, skipped=2)
    for name in "abc":
        meter.update(events.slide_started(job(name), 1))
        meter.update(events.slide_progress(job(name), progress(0, 10)))
    clock.now += 5
    meter.update(events.slide_progress(job("a"), progress(10, 10, 70)))
    meter.update(events.slide_done(job("a"), record(75)))
    meter.update(events.slide_failed(job("b"), "no"))
    now = meter.snapshot()
    assert (now.done, now.failed, now.skipped, now.nuclei) == (1, 1, 2, 75)
    assert now.seconds_left == pytest.approx(10 / 2)
    meter.update(events.slide_failed(job("c"), "no"))
    assert meter.snapshot().seconds_left == 0 and meter.snapshot().active == ()


def test_a_slide_that_can_not_be_opened_fails_without_having_been_begun() -> None:
    meter, _ = metered(2, {"a": 1})
    meter.update(events.slide_failed(job("notes"), "no"))
    assert meter.snapshot().failed == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.floats(0, 100)), max_size=30))
def test_whatever_comes_the_figures_are_no_nonsense(steps: list[tuple[str, int, float]]) -> None:
    meter, clock = metered(3, {"a": 0, "b": 10, "c": 10**12})
    for name, tiles, seconds in steps:
        meter.update(events.slide_started(job(name), 1))
        meter.update(events.slide_progress(job(name), progress(tiles, 50, tiles)))
        clock.now += seconds
        now = meter.snapshot()
        assert now.mpx_per_s >= 0 and now.nuclei >= 0
        assert now.seconds_left is None or now.seconds_left >= 0


class Kept:
    """A sink that keeps what it is told."""

    name = "kept"

    def __init__(self) -> None:
        self.taken: list[tuple[RunEvent, RunSnapshot]] = []

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        self.taken.append((event, now))


def job(name: str = "a") -> SlideJob:
    return SlideJob(Path("slides") / f"{name}.svs", PurePosixPath(name))


def record(nuclei: int = 1234, *warnings: str) -> SlideRecord:
    counts = {"nuclei": nuclei, "pixels": 30_000_000, "pixels_resumed": 10_000_000}
    return SlideRecord({}, {}, {}, {"wall": 10.0}, counts, list(warnings))


def short_run(sinks: list[EventSink]) -> None:
    """A short run of which something is to be said at every step."""
    publish = EventPublisher(RunMeter(), sinks)
    publish(events.run_started(4, 1, {"a": 10, "b": 10, NASTY: 5}))
    publish(events.notice("b: the existing result was made with a different model"))
    publish(events.slide_started(job(), 1))
    publish(events.slide_progress(job(), progress(0, 10)))
    publish(events.slide_progress(job(), progress(5, 10, 100)))
    publish(events.slide_done(job(), record(1234, "clumps were cut")))
    publish(events.slide_started(job(NASTY), 2))
    publish(events.slide_failed(job(NASTY), f"slides/{NASTY}.svs: no slide"))
    publish(events.slide_started(job("b"), 3))
    publish(events.slide_stopped(job("b")))
    publish.run_ended("SIGINT received")


def test_every_event_is_told_with_the_run_as_it_stands() -> None:
    kept = Kept()
    short_run([kept])
    kinds = [event.kind for event, _ in kept.taken]
    assert kinds[0] == events.RUN_STARTED and kinds[-1] == events.RUN_ENDED
    ends = {event.kind: now for event, now in kept.taken}
    assert (ends[events.SLIDE_DONE].done, ends[events.SLIDE_DONE].nuclei) == (1, 1234)
    assert ends[events.RUN_ENDED].failed == 1 and not ends[events.RUN_ENDED].active


def test_lines_say_what_a_user_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_INTERVAL", 0.0)
    lines: list[str] = []
    short_run([PlainLines(lines.append)])
    assert lines[:2] == ["1 of 4 slides are already done", "b: the existing result was made with a different model"]
    assert "a: 1,234 nuclei in 10 s (2.0 Mpx/s)" in lines and "a: warning: clumps were cut" in lines
    assert any(line.startswith("  a: 5/10 tiles") for line in lines)
    assert all(line.isprintable() for line in lines)
    assert sum("failed: " in line for line in lines) == 1


def test_quiet_says_what_failed_and_nothing_else() -> None:
    lines: list[str] = []
    short_run([FailuresOnly(lines.append)])
    assert len(lines) == 1 and "failed: " in lines[0] and lines[0].isprintable()


def test_state_of_a_run_in_one_line() -> None:
    now = RunSnapshot(12, 2, 1, 1, 60.0, 9060.0, 312600, 41.23, 5210.4)
    assert state_of(now) == "3 of 12 slides, 1 failed, 41.2 Mpx/s, 5,210 nuclei/s, 2 h 31 min left"
    assert state_of(RunSnapshot(total=2)) == "0 of 2 slides"


def test_events_become_json_a_line_each(tmp_path: Path) -> None:
    lines = JsonLines(str(tmp_path / "events.jsonl"))
    short_run([lines])
    lines.close()
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [item["event"] for item in told].count("slide_progress") == 1
    assert all(item["time"].endswith("Z") and item["run"]["total"] == 4 for item in told)
    done = next(item for item in told if item["event"] == "slide_done")
    assert (done["slide"], done["nuclei"], done["warnings"]) == ("a", 1234, ["clumps were cut"])
    failed = next(item for item in told if item["event"] == "slide_failed")
    assert failed["slide"] == NASTY
    assert told[-1]["stopped"] == "SIGINT received"
    lines = JsonLines(str(tmp_path / "events.jsonl"))
    short_run([lines])
    lines.close()
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2 * len(told)


def test_json_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines("-")
    short_run([lines])
    lines.close()
    shown = capsys.readouterr()
    assert shown.out == "" and all(json.loads(line) for line in shown.err.splitlines())


def test_a_json_log_that_can_not_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--json-log .*missing"):
        short_run([JsonLines(str(tmp_path / "missing" / "events.jsonl"))])


def test_the_log_has_what_was_said_and_a_traceback_and_no_forged_entry(tmp_path: Path) -> None:
    with pytest.raises(OutputError), RunLog(tmp_path):
        short_run([LogLines()])
        logging.getLogger("nuclix").error("%s failed: %s\n%s", NASTY, "x", "Traceback (most recent call last):\n  File")
        raise OutputError("disk full")
    text = (tmp_path / "run.log").read_text()
    assert "1,234 nuclei" in text and "warning: clumps" in text and "run ended (SIGINT received)" in text
    assert "the run failed" in text and "OutputError: disk full" in text
    assert "\nTraceback" not in text and "    Traceback" in text
    assert not any(line.startswith("2026-01-01 00:00:00") for line in text.splitlines())
    assert not any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger("nuclix").handlers)


def test_no_log_is_begun_where_nothing_is_said(tmp_path: Path) -> None:
    with RunLog(tmp_path):
        pass
    with pytest.raises(UsageError), RunLog(tmp_path):
        raise UsageError("another nuclix run is using this output folder")
    assert not (tmp_path / "run.log").exists()


def test_a_log_on_a_full_disk_does_not_stand_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path / "missing"):
        logging.getLogger("nuclix").info("lost")
    assert capsys.readouterr().err == ""


BUSY = RunSnapshot(
    12, 2, 3, 1, 4000.0, 9000.0, 10**6, 41.2, 5210.0,
    (SlideSnapshot("TCGA-18-5592-01Z-00-DX1.62A1", 120, 1000, 51234, 20.1, 65.0),
     SlideSnapshot(NASTY, 0, 0, 0, 0.0, 2.0)),
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 120, 250])
def test_bars_fit_any_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(draw(BUSY, width))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3 and all(len(line) <= width for line in lines)
    if width >= 120:
        assert lines[0].startswith("6/12 slides, 1 failed") and "2 h 30 min left" in lines[0]
        assert "120/1,000 tiles" in lines[1] and "51,234 nuclei" in lines[1]
        assert "opening" in lines[2] and "\x1b" not in lines[2]


def test_bars_print_what_is_to_be_kept_above_them() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    meter = RunMeter()
    with Bars(console, meter.snapshot) as bars:
        short_run([bars])
    shown = console.file.getvalue()
    assert "a: 1,234 nuclei in 10 s" in shown and "a: warning: clumps were cut" in shown
    assert "failed: " in shown and "[red]" in shown and "\x1b[2J" not in shown


def test_progress_and_beginnings_are_no_lines() -> None:
    for kind in (events.SLIDE_STARTED, events.SLIDE_PROGRESS, events.SLIDE_STOPPED, events.RUN_ENDED):
        assert sentences(RunEvent(kind, "a", {"stopped": ""})) == []


@given(st.text())
def test_names_become_one_printable_line(name: str) -> None:
    assert one_line(name).isprintable() or one_line(name) == ""
    if name.isprintable():
        assert one_line(name) == name


@given(st.text(max_size=30), st.integers(1, 40))
def test_shortened_names_fit(name: str, width: int) -> None:
    assert len(shortened(name, width)) <= max(width, 3)


class Broken:
    """A sink whose stream is gone."""

    name = "stderr"

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_sink_that_fails_is_dropped_and_the_run_goes_on() -> None:
    kept = Kept()
    publisher = EventPublisher(RunMeter(), [Broken(), kept])
    publisher(events.notice("one"))
    publisher(events.notice("two"))
    said = [event.facts["message"] for event, _ in kept.taken]
    assert said == ["stderr: Broken pipe; the run goes on without it", "one", "two"]


def test_a_full_disk_under_the_json_log_ends_only_the_log() -> None:
    kept = Kept()
    lines = JsonLines("/dev/full")
    publisher = EventPublisher(RunMeter(), [lines, kept])
    publisher(events.notice("one"))
    lines.close()
    assert "--json-log /dev/full: No space left on device" in kept.taken[0][0].facts["message"]
    assert kept.taken[1][0].facts["message"] == "one"
