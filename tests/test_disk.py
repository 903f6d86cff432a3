"""Full disks, read-only folders and folders that vanish: said clearly, nothing torn, and a resume completes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from crash_harness import committed_rows
from end_to_end import (
    LONG,
    config_for,
    leftovers,
    make_model,
    make_slide,
    nuclix,
    nuclix_here,
    results,
    run_options,
    wait_until,
)
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import Done, FromWorker, OutputUnavailable
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.worker import process_slide
from nuclix.engine.segmentation import checkpoint
from nuclix.engine.segmentation import slide as slide_run
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.slide import SegmentationContext, make_context

STRIDE = int(os.environ.get("NUCLIX_DISK_STRIDE", "13"))  # prime, so that it meets every kind of operation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture(scope="module")
def shared(model: Path) -> SegmentationContext:
    return make_context(config_for(Path(), model), time.time())


@dataclass
class Bench:
    """One small slide and the shared to work on it in this process."""

    job: SlideJob
    shared: SegmentationContext

    def attempt(self, out: Path) -> FromWorker:
        shared = replace(self.shared, config=replace(self.shared.config, out=str(out)))
        return process_slide(self.job, shared, RunHooks(lambda _: None, lambda: False))


@pytest.fixture
def bench(shared: SegmentationContext, tmp_path: Path) -> Bench:
    return Bench(SlideJob(make_slide(tmp_path / "a.tif", 3, 290, 100), PurePosixPath("a")), shared)


class FailingDisk:
    """Lets so many operations through, then fails each with one error until it is repaired."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = 10**9
        self.number = number
        monkeypatch.setattr(os, "fsync", self._checked(lambda _: None))
        for place, name in ((checkpoint, "_write_all"), (Path, "replace"), (Path, "mkdir")):
            monkeypatch.setattr(place, name, self._checked(getattr(place, name)))

    def _checked(self, operation: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise OSError(self.number, os.strerror(self.number))
            return operation(*arguments, **named)

        return call


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, pytest.param(errno.ESTALE, marks=pytest.mark.slow), pytest.param(errno.EIO, marks=pytest.mark.slow)],
    ids=["full", "stale share", "broken"],
)
def test_whatever_operation_fails_nothing_is_torn_and_the_next_attempt_completes(
    bench: Bench, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation in turn (every STRIDEth, to be quick) is the first one that the disk refuses."""
    (tmp_path / "whole").mkdir()
    assert isinstance(bench.attempt(tmp_path / "whole"), Done)
    expected = results(tmp_path / "whole")
    disk = FailingDisk(monkeypatch, number)
    moments = 0
    while True:
        out = tmp_path / f"out{moments}"
        out.mkdir()
        disk.left = moments
        message = bench.attempt(out)
        if isinstance(message, Done):
            break
        assert isinstance(message, OutputUnavailable) and os.strerror(number) in message.message, message
        assert results(out) in ({}, expected)
        assert not list(out.glob("*.tmp")) and not list(out.glob(".*.nuclix.tmp"))
        if (out / "a.json").exists():
            json.loads((out / "a.json").read_text())
        disk.left = 10**9
        message = bench.attempt(out)
        assert isinstance(message, Done) and results(out) == expected
        moments += STRIDE
    assert moments > 150  # fewer would mean that the fault no longer reaches what it should


def test_a_name_that_is_too_long_fails_one_slide_only(bench: Bench, tmp_path: Path) -> None:
    bench.job = SlideJob(bench.job.path, PurePosixPath("a" * 300))
    (tmp_path / "out").mkdir()
    message = bench.attempt(tmp_path / "out")
    assert type(message).__name__ == "Failed" and "File name too long" in message.message


def test_workers_do_not_make_a_folder_again_that_has_vanished(bench: Bench, tmp_path: Path) -> None:
    shared = replace(bench.shared, config=replace(bench.shared.config, out=str(tmp_path / "gone")))
    bench.job = SlideJob(bench.job.path, PurePosixPath("sub/a"))
    message = process_slide(bench.job, shared, RunHooks(lambda _: None, lambda: False))
    assert isinstance(message, OutputUnavailable) and not (tmp_path / "gone").exists()


def test_a_result_that_is_there_before_its_record_is_made_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(slide_run, "write_record", full)
        assert isinstance(bench.attempt(tmp_path / "out"), OutputUnavailable)
    assert slide_paths(tmp_path / "out", bench.job).checkpoint.exists()
    message = bench.attempt(tmp_path / "out")
    assert isinstance(message, Done), "written from the stored objects"


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, where mounting is permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> bool:
    done = subprocess.run(["mount", "-o", f"remount,{options}", folder], capture_output=True, check=False)
    return done.returncode == 0


def test_a_full_disk_stops_the_run_and_with_room_it_goes_on(model: Path, tmp_path: Path, tmpfs: Path) -> None:
    for seed in range(2):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 800, 500)
    out = tmpfs / "out"
    command = ["run", tmp_path / "slides", *run_options(out, model)]
    end = nuclix_here(*command)
    assert end.code == 1, end.errors
    assert "No space left on device" in end.errors or "disk is full" in end.errors
    assert "fix this, then run the same command to resume" in end.errors
    assert "Traceback" not in end.errors and "0 failed" in end.said
    assert results(out) == {}
    assert remount(tmpfs, "size=50m")
    end = nuclix_here(*command)
    assert end.code == 0, end.errors
    assert len(results(out)) == 2 and leftovers(out) == []


def test_a_folder_that_is_removed_while_the_run_is_on(model: Path, tmp_path: Path) -> None:
    make_slide(tmp_path / "slides" / "a.tif", 1, 1500, 800)
    out = tmp_path / "out"
    command = ["run", tmp_path / "slides", *run_options(out, model)]
    process = nuclix(*command)
    wait_until(lambda: committed_rows(out) > 0)
    out.rename(tmp_path / "moved")
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "is gone" in errors or "No such file" in errors or "ledger can't be used" in errors
    assert not out.exists()
    shutil.rmtree(tmp_path / "moved")


def test_a_disk_that_becomes_read_only(model: Path, tmp_path: Path, tmpfs: Path) -> None:
    assert remount(tmpfs, "size=50m")
    make_slide(tmp_path / "slides" / "a.tif", 1, 1500, 800)
    out = tmpfs / "out"
    command = ["run", tmp_path / "slides", *run_options(out, model)]
    process = nuclix(*command)
    wait_until(lambda: committed_rows(out) > 0)
    process.kill()
    process.communicate()
    wait_until(lambda: remount(tmpfs, "ro"))  # once the worker's files are closed
    end = nuclix_here(*command)
    assert end.code == 2 and "can't be written: Read-only file system" in end.errors
    assert remount(tmpfs, "rw")
    end = nuclix_here(*command)
    assert end.code == 0, end.errors
