"""What a run does with its output folder before it begins."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import prepare_folder, remove_temporaries, report_path
from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file, temporary_name, write_output

JOBS = [SlideJob(Path("a.svs"), PurePosixPath("a")), SlideJob(Path("b.svs"), PurePosixPath("sub/b"))]


def test_what_killed_runs_left_half_written_goes_and_all_else_stays(tmp_path: Path) -> None:
    ours = [tmp_path, tmp_path / "sub", *(report_path(tmp_path, str(job.name), ".jpg").parent for job in JOBS)]
    for folder in ours:
        folder.mkdir(parents=True, exist_ok=True)
        temporary_name(folder / "a.geojson").write_text("half")
    (tmp_path / ".nuclix-probe-77").touch()
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    kept = [
        temporary_name(elsewhere / "c.geojson"),  # not a folder of this run's
        tmp_path / "a.geojson",
        tmp_path / "mine.nuclix.tmp",
        tmp_path / ".mine.tmp",
        tmp_path / ".a.checkpoint",
    ]
    for path in kept:
        path.write_text("whole")
    remove_temporaries(tmp_path, JOBS)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_folders_that_are_not_there_yet_are_no_trouble(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "out")
    remove_temporaries(tmp_path / "new" / "out", JOBS)
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_what_can_not_be_removed_is_said(tmp_path: Path) -> None:
    temporary_name(tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="can't be written: Is a directory"):
        remove_temporaries(tmp_path, JOBS)


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written: Not a directory"):
        prepare_folder(tmp_path / "file" / "out")


def test_a_file_killed_over_its_writing_bears_a_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "a.json", b"{}")
    assert len(list(tmp_path.iterdir())) == 1
    remove_temporaries(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_share_that_can_not_flush_a_folder_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_a_full_disk_under_a_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a.json", b"{}")


def test_outputs_that_are_devices_pipes_or_links_are_written_to(tmp_path: Path) -> None:
    fifo, link, target = tmp_path / "fifo", tmp_path / "link.json", tmp_path / "target.json"
    os.mkfifo(fifo)
    target.write_text("old")
    link.symlink_to(target)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write_output(fifo, b"to the pipe")
    reader.join()
    write_output(link, b"new")
    write_output(Path("/dev/null"), b"nothing")
    assert read == [b"to the pipe"] and stat.S_ISFIFO(fifo.lstat().st_mode)
    assert link.is_symlink() and target.read_text() == "new"
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_results_replace_planted_links_and_do_not_follow_them(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.json").symlink_to(victim)
    replace_file(tmp_path / "a.json", b"{}")
    assert victim.read_text() == "mine" and not (tmp_path / "a.json").is_symlink()
