"""Anybody may ask how a run goes, at any time, without being in its way."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nuclix.engine.batch import events
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.batch.layout import LOCK_NAME
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.cli.main import main
from nuclix.engine.cli.status import status_facts, status_lines
from nuclix.engine.errors import UsageError
from nuclix.engine.progress import status
from nuclix.engine.progress.meter import RunSnapshot, SlideSnapshot
from nuclix.engine.progress.status import RunFile, StatusFile, is_live, read_runs
from nuclix.engine.report.collect import INTERRUPTED, collect
from outputs import FakeSlide, fill, write_run

GOOD = FakeSlide("good", (4000, 6000))
BAD = FakeSlide("bad", error="slides/bad.svs: no slide")
AT_WORK = RunSnapshot(
    3, 0, 1, 1, 60.0, 90.0, 100, 2.5, 10.0, (SlideSnapshot("third", 3, 12, 50, 2.5, 30.0),)
)  # fmt: skip


def begin(out: Path, name: str) -> None:
    ledger = Ledger(out)
    ledger.enlist(name, Path(f"{name}.svs"), 10)
    ledger.begin(name)
    ledger.close()


def mine(**changes: object) -> RunFile:
    run = RunFile(socket.gethostname(), os.getpid(), time.time() - 60, time.time() - 1, progress=AT_WORK)
    return replace(run, **changes)


def test_a_run_at_work_is_seen_with_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, [GOOD, BAD])
    begin(tmp_path, "third")
    write_run(tmp_path, mine())
    with FolderLock(tmp_path):
        assert main(["status", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert main(["status", str(tmp_path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
    assert "running for 1 min" in shown and f"process {os.getpid()}" in shown
    assert "third: 25% of 12 tiles, 2.5 Mpx/s, 50 nuclei" in shown and "1 min 30 s left" in shown
    assert "failed: bad: no slide" in shown
    assert facts["state"] == "running" and facts["slides"] == {"total": 3, "failed": 1, "done": 1, "running": 1}
    assert facts["run"]["progress"]["active"][0]["tiles"] == 3
    assert facts["failed"] == {"bad": "no slide"} and facts["nuclei"] > 0


def test_a_killed_run_is_called_so_and_its_slide_interrupted(tmp_path: Path) -> None:
    fill(tmp_path, [GOOD])
    begin(tmp_path, "third")
    write_run(tmp_path, mine())
    folder = collect(tmp_path)  # no lock
    assert not folder.live and folder.count(INTERRUPTED) == 1
    assert status_facts(folder)["state"] == "killed"
    assert status_lines(folder)[-1] == "the same command resumes"
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "start": ""}))
    assert status_facts(collect(tmp_path))["state"] == "killed"


def test_a_stopped_run_says_why(tmp_path: Path) -> None:
    fill(tmp_path, [GOOD])
    write_run(tmp_path, mine(ended=time.time(), stopped="SIGTERM received"))
    folder = collect(tmp_path)
    assert status_facts(folder)["state"] == "stopped" and "SIGTERM received" in status_lines(folder)[0]


def test_a_finished_run(tmp_path: Path) -> None:
    fill(tmp_path, [GOOD])
    folder = collect(tmp_path)
    assert status_facts(folder)["state"] == "finished" and "finished on" in status_lines(folder)[0]


def test_a_ledger_alone_is_enough(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    folder = collect(tmp_path)
    assert status_facts(folder)["state"] == "unknown" and status_facts(folder)["slides"] == {"total": 0}
    assert status_lines(folder)


def test_another_hosts_run_is_alive_while_it_speaks(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 7, "start": ""}))
    run = mine(host="elsewhere", pid=7)
    assert is_live(tmp_path, run, run.updated + 60)
    assert not is_live(tmp_path, run, run.updated + 10_000)
    assert not is_live(tmp_path, replace(run, pid=8), run.updated)
    assert not is_live(tmp_path, replace(run, ended=1.0), run.updated)
    (tmp_path / LOCK_NAME).write_text("torn {")
    assert not is_live(tmp_path, run, run.updated)


def test_asking_changes_nothing_and_waits_for_nobody(tmp_path: Path) -> None:
    fill(tmp_path, [GOOD, BAD])
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    writer = sqlite3.connect(tmp_path / "nuclix.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # a run in the middle of a change
    begun = time.monotonic()
    assert len(collect(tmp_path).slides) == 2
    assert time.monotonic() - begun < 20
    writer.execute("ROLLBACK")
    writer.close()
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}


def test_a_folder_without_a_run_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "report"):
        assert main([command, str(tmp_path / "nowhere")]) == 2
        assert "no run has written here" in capsys.readouterr().err
    with pytest.raises(UsageError):
        collect(tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_can_not_command_the_terminal(tmp_path: Path) -> None:
    fill(tmp_path, [FakeSlide("x\x1b[2Jy\nz", error="bad \x1b]0;title\x07")])
    assert all(line.isprintable() for line in status_lines(collect(tmp_path)))


def started(out: Path) -> tuple[StatusFile, RunSnapshot]:
    file = StatusFile(out, {"retry": 1})
    file.take(RunEvent(events.RUN_STARTED, "", {}), AT_WORK)
    return file, AT_WORK


def test_the_file_is_written_at_once_then_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now = started(tmp_path)
    (run,) = read_runs(tmp_path)
    assert (run.pid, run.ended, run.progress, run.config) == (os.getpid(), None, now, {"retry": 1})
    assert run.versions["nuclix"]
    file.take(RunEvent(events.SLIDE_PROGRESS, "third", {}), replace(now, nuclei=999))
    assert read_runs(tmp_path)[0].progress == now
    monkeypatch.setattr(status, "INTERVAL", 0.0)
    file.take(RunEvent(events.SLIDE_PROGRESS, "third", {}), replace(now, nuclei=999))
    assert read_runs(tmp_path)[0].progress.nuclei == 999
    file.take(RunEvent(events.RUN_ENDED, "", {"stopped": "SIGINT received"}), now)
    (run,) = read_runs(tmp_path)
    assert run.ended is not None and run.stopped == "SIGINT received"


def test_a_run_goes_on_where_its_status_can_not_be_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    file, now = started(out)
    for path in sorted(out.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    out.rmdir()
    file.take(RunEvent(events.SLIDE_DONE, "third", {}), now)
    assert not out.exists(), "a folder that has vanished must not come back"


def test_files_that_are_no_status_are_passed_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path, mine()).parent
    for name, text in {"a": "{", "b": "[]", "c": '{"host": 3}', "d": '{"host": "h"}', "e": "\x00"}.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "f.json").write_bytes(b"\xff\xfe")
    assert len(read_runs(tmp_path)) == 1


def test_runs_come_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        write_run(tmp_path, mine(started=float(number), pid=number))
    assert [run.pid for run in read_runs(tmp_path)] == [1, 2, 3]


def test_status_needs_neither_torch_nor_a_slide_library(tmp_path: Path) -> None:
    fill(tmp_path, [GOOD])
    code = (
        "import sys; from nuclix.engine.cli.main import main;"
        f"code = main(['status', {str(tmp_path)!r}]);"
        "heavy = {'torch', 'numba', 'skimage', 'tiffslide', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
