"""Worker processes, one a device: who gets which slide, and what becomes of a device that is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import fake_worker
from end_to_end import wait_until
from nuclix.engine.batch import worker_process as module
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import (
    Failed,
    Notice,
    RunContext,
    SlideEvent,
    SlideProgress,
    SlideStarted,
    Stopped,
    WorkerLost,
)
from nuclix.engine.batch.processes import ProcessExecutor
from nuclix.engine.errors import UsageError
from nuclix.engine.run_config import RunConfig

GPUS = ("cuda:0", "cuda:1")


class Table:
    """An executor over slides that are worked on until their file is removed."""

    def __init__(self, folder: Path, devices: tuple[str, ...]) -> None:
        self.folder = folder
        self.executor = ProcessExecutor(
            RunContext(RunConfig(out=str(folder), threads=8, stall_timeout=60.0), time.time(), float("inf")), devices
        )
        self.events: list[tuple[str, SlideEvent]] = []
        self.notices: list[str] = []

    def submit(self, name: str) -> None:
        (self.folder / name).touch()
        self.until(self.executor.wants)
        self.executor.submit(SlideJob(self.folder / name, PurePosixPath(name)))
        self.until(lambda: name in self.of(SlideStarted))

    def until(self, condition) -> None:
        def met() -> bool:
            for event in self.executor.poll(0.05):
                if isinstance(event, Notice):
                    self.notices.append(event.message)
                else:
                    self.events.append((str(event[0].name), event[1]))
            return condition()

        wait_until(met)

    def of(self, kind: type) -> dict[str, SlideEvent]:
        return {name: event for name, event in self.events if isinstance(event, kind)}

    def finish(self, *names: str) -> list[str]:
        """Let slides end; return what their workers say of themselves."""
        for name in names:
            (self.folder / name).unlink()
        self.until(lambda: set(names) <= set(self.of(Failed)))
        return [self.of(Failed)[name].message for name in names]  # type: ignore[attr-defined]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Table]]:
    """A place for executors that are closed afterwards."""
    monkeypatch.setattr(module, "run_worker", fake_worker.run_worker)
    opened: list[Table] = []
    yield opened
    for table in opened:
        table.executor.close()


def opened(tables: list[Table], folder: Path, devices: tuple[str, ...] = GPUS) -> Table:
    tables.append(Table(folder, devices))
    return tables[-1]


def test_every_device_has_a_process_and_a_slide_of_its_own(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path)
    table.submit("a")
    table.submit("b")
    table.until(lambda: len(table.of(SlideProgress)) == 2)
    assert not table.executor.wants()
    places = {name: event.place for name, event in table.of(SlideStarted).items()}  # type: ignore[attr-defined]
    assert set(places.values()) == set(GPUS)
    said = table.finish("a", "b")
    for name, text in zip("ab", said, strict=True):
        assert text.startswith(f"{places[name]}, 4 threads, shares 1, ")  # 8 threads for reading; the CPU not divided
    assert len({re.sub(".*process ", "", text) for text in said}) == 2
    assert table.executor.wants()


def test_workers_on_the_cpu_share_it(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path, ("cpu", "cuda:0", "cpu"))
    for name in "abc":
        table.submit(name)
    said = table.finish(*"abc")
    assert sorted(text.split(",")[0] for text in said) == ["cpu", "cpu", "cuda:0"]
    assert all("shares 2" in text and "2 threads" in text for text in said)


def test_a_worker_that_is_killed_comes_again_on_its_device(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path)
    table.submit("a")
    table.submit("deadly")
    table.until(lambda: bool(table.of(WorkerLost)))
    assert list(table.of(WorkerLost)) == ["deadly"]
    assert "killed by SIGKILL" in table.of(WorkerLost)["deadly"].reason  # type: ignore[attr-defined]
    table.submit("b")
    begun = [(name, event.place) for name, event in table.events if isinstance(event, SlideStarted)]
    places = dict(begun)
    assert places["b"] == places["deadly"] != places["a"]
    table.finish("a", "b")


def test_time_in_which_the_run_is_suspended_is_no_stall(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path, ("cuda:0",))
    table.submit("a")
    table.until(lambda: len(table.of(SlideProgress)) == 1)
    (worker,) = table.executor._workers
    worker.heard -= 1000  # Ctrl-Z, and fg after a quarter of an hour: neither side did anything
    table.executor._looked -= 1000
    table.until(lambda: True)
    assert not table.of(Failed)
    worker.heard -= 1000  # the worker alone has been silent
    table.until(lambda: bool(table.of(Failed)))
    assert "no progress for" in table.of(Failed)["a"].message  # type: ignore[attr-defined]


def test_the_run_goes_on_without_a_device_that_is_lost(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path)
    table.submit("a")
    table.submit("b")
    places = {name: event.place for name, event in table.of(SlideStarted).items()}  # type: ignore[attr-defined]
    (tmp_path / f"lost-{places['a']}").touch()
    next(worker for worker in table.executor._workers if worker.device == places["a"]).process.kill()
    table.until(lambda: bool(table.notices))
    assert list(table.of(WorkerLost)) == ["a"]
    assert table.notices == [f"{places['a']}: going on without this device: no device {places['a']!r}"]
    assert table.executor.is_alive()
    table.finish("b")
    table.submit("c")
    assert table.finish("c")[0].startswith(places["b"])


def test_a_device_that_was_never_there_is_wrong_usage(tables: list[Table], tmp_path: Path) -> None:
    (tmp_path / "lost-cuda:1").touch()
    table = opened(tables, tmp_path)
    with pytest.raises(UsageError, match="no device 'cuda:1'"):
        table.until(lambda: False)


def test_a_device_that_is_taken_costs_that_device_and_not_the_run(tables: list[Table], tmp_path: Path) -> None:
    (tmp_path / "taken-cuda:1").touch()
    table = opened(tables, tmp_path)
    table.submit("a")
    table.until(lambda: bool(table.notices))
    assert table.notices == ["cuda:1: going on without this device: cuda:1 is out of memory"]
    assert table.finish("a")[0].startswith("cuda:0")


def test_when_every_device_is_taken_nothing_can_be_run(tables: list[Table], tmp_path: Path) -> None:
    for device in GPUS:
        (tmp_path / f"taken-{device}").touch()
    table = opened(tables, tmp_path)
    with pytest.raises(UsageError, match="is out of memory"):
        table.until(lambda: False)


def test_a_stop_reaches_every_worker_and_none_is_replaced(tables: list[Table], tmp_path: Path) -> None:
    table = opened(tables, tmp_path)
    table.submit("a")
    table.submit("b")
    table.executor.stop()
    table.until(lambda: set(table.of(Stopped)) == {"a", "b"})
    for worker in list(table.executor._workers):
        worker.process.kill()
    table.until(lambda: not table.executor.is_alive())
