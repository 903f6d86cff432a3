"""The ledger remembers; the lock keeps two runs apart."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nuclix.engine.batch.layout import LEDGER_NAME, LOCK_NAME, prepare_folder
from nuclix.engine.batch.ledger import DONE, FAILED, PENDING, RUNNING, Ledger
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.errors import OutputError, UsageError

OUTCOME = {"fingerprint": "f", "key": "k", "output": "a.geojson", "checksum": "c", "record": {"counts": {"nuclei": 3}}}


def test_a_slide_goes_through_its_states_and_the_next_process_knows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enlist("a", tmp_path / "a.svs", 7)
    assert ledger.row("a").state == PENDING
    ledger.begin("a")
    assert (ledger.row("a").state, ledger.row("a").attempts) == (RUNNING, 1)
    ledger.fail("a", "no scale")
    assert (ledger.row("a").state, ledger.row("a").error) == (FAILED, "no scale")
    ledger.begin("a")
    ledger.finish("a", OUTCOME)
    ledger.close()
    row = Ledger(tmp_path, read_only=True).row("a")
    assert (row.state, row.attempts, row.error, row.output) == (DONE, 2, None, "a.geojson")
    assert row.record == {"counts": {"nuclei": 3}} and row.bytes == 7 and row.ended >= row.begun


def test_a_name_that_is_no_text_is_remembered_as_it_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    name = "caf\udce9"
    ledger.enlist(name, tmp_path / f"{name}.svs", 7)
    ledger.begin(name)
    ledger.fail(name, f"{name}.svs: no scale")
    ledger.begin(name)
    ledger.finish(name, {**OUTCOME, "output": f"{name}.geojson"})
    row = ledger.row(name)
    assert row is not None and (row.name, row.output, row.attempts) == (name, f"{name}.geojson", 2)
    assert [row.name for row in ledger.rows()] == [name]
    ledger.close()


def test_a_known_slide_keeps_its_state(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enlist("a", tmp_path / "a.svs", 7)
    ledger.begin("a")
    ledger.finish("a", OUTCOME)
    ledger.enlist("a", tmp_path / "moved" / "a.svs", 8)
    row = ledger.row("a")
    assert (row.state, row.bytes, row.path) == (DONE, 8, str(tmp_path / "moved" / "a.svs"))
    assert ledger.row("b") is None and [r.name for r in ledger.rows()] == ["a"]
    ledger.close()


def test_a_damaged_or_newer_ledger_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / LEDGER_NAME).write_bytes(b"not a database, but long enough to be taken for one" * 40)
    with pytest.raises(OutputError, match=LEDGER_NAME):
        Ledger(tmp_path)
    (tmp_path / LEDGER_NAME).unlink()
    with sqlite3.connect(tmp_path / LEDGER_NAME) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(OutputError, match="newer"):
        Ledger(tmp_path)


def test_a_ledger_that_vanishes_under_a_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ledger = Ledger(tmp_path / "out")
    ledger.path.unlink()
    with pytest.raises(OutputError, match="can't be written: attempt to write a readonly database"):
        ledger.enlist("a", tmp_path / "a.svs", 1)
        ledger.flush()
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match="the output folder is gone"):
        ledger.flush()
    ledger._pending.clear()
    ledger.close()


def test_looking_at_a_folder_without_ledger_makes_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Ledger(tmp_path, read_only=True)
    assert not (tmp_path / LEDGER_NAME).exists()


def test_the_second_run_is_refused_with_host_and_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(UsageError, match=rf"{socket.gethostname()}.*{os.getpid()}"), FolderLock(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    (tmp_path / LOCK_NAME).write_text(
        json.dumps({"host": socket.gethostname(), "pid": int(child.stdout), "start": "1"})
    )
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_process_number_used_again_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": "1"}))
    with FolderLock(tmp_path):
        pass


def test_the_lock_of_another_host_is_kept(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "1"}))
    with pytest.raises(UsageError, match="elsewhere"), FolderLock(tmp_path):
        pass


def test_a_torn_lock_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("")
    with FolderLock(tmp_path):
        pass


def test_what_is_left_of_locks_in_the_making_goes(tmp_path: Path) -> None:
    (tmp_path / f"{LOCK_NAME}.{socket.gethostname()}.77").touch()
    elsewhere = tmp_path / f"{LOCK_NAME}.elsewhere.77"
    elsewhere.touch()
    with FolderLock(tmp_path):
        assert set(tmp_path.iterdir()) == {tmp_path / LOCK_NAME, elsewhere}


def test_a_share_that_does_not_answer_for_a_moment_does_not_cost_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine.batch import lock

    monkeypatch.setattr(lock, "_LOOK_INTERVAL", 0.0)
    with FolderLock(tmp_path) as held:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", _refuse(errno.ESTALE))
            assert held.is_held()
            patch.setattr(lock, "_GRACE", 0.0)
            assert not held.is_held()
            patch.setattr(lock, "_GRACE", 1e9)
            patch.setattr(Path, "read_text", _refuse(errno.EACCES))
            assert not held.is_held()
        assert held.is_held()
        (tmp_path / LOCK_NAME).write_text("another run")
        assert not held.is_held()


def _refuse(number: int) -> Callable[..., str]:
    def read_text(*_: object) -> str:
        raise OSError(number, os.strerror(number))

    return read_text


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"host": "h", "pid": "abc"}', '{"host": "h", "pid": null}'])
def test_a_lock_that_names_no_process_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    with FolderLock(tmp_path) as held:
        assert held.is_held()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in (f"{LOCK_NAME}.{socket.gethostname()}.{os.getpid()}", f".nuclix-probe-{os.getpid()}"):
        (out / name).symlink_to(victim)
    prepare_folder(out)
    with FolderLock(out):
        assert victim.read_text() == "mine"


def test_a_ledger_of_the_first_format_is_read_and_extended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enlist("a", tmp_path / "a.svs", 7)
    ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as db:
        for name in ("slide_state", "content", "output_state"):
            db.execute(f"ALTER TABLE slides DROP COLUMN {name}")
        db.execute("PRAGMA user_version=1")
    with closing(Ledger(tmp_path, read_only=True)) as old:
        assert old.row("a").content is None
    with closing(Ledger(tmp_path)) as extended:
        extended.finish("a", {**OUTCOME, "content": "c"})
        assert extended.row("a").content == "c"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE slides SET record = '{'", "the ledger is damaged .record of a"),
        ("UPDATE slides SET record = '[1]'", "the ledger is damaged .record of a"),
        ("ALTER TABLE slides DROP COLUMN attempts", "no column attempts"),
    ],
)
def test_a_ledger_that_someone_edited_is_an_error_that_says_so(tmp_path: Path, damage: str, said: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.enlist("a", tmp_path / "a.svs", 7)
    ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as db:
        db.execute("ALTER TABLE slides ADD COLUMN extra TEXT")  # ignored
        db.execute(damage)
        db.commit()
    with pytest.raises(OutputError, match=said), closing(Ledger(tmp_path)) as damaged:
        damaged.rows()


def test_a_disk_error_of_a_share_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nuclix.engine.batch import ledger as module

    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    ledger = Ledger(tmp_path)
    real, failures = Ledger._commit, [1, 2]

    def commit(self: Ledger) -> None:
        if failures:
            failures.pop()
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_WRITE"  # type: ignore[attr-defined]
            raise error
        real(self)

    monkeypatch.setattr(Ledger, "_commit", commit)
    ledger.enlist("a", tmp_path / "a.svs", 7)
    assert ledger.row("a").bytes == 7 and pauses == [1.0, 2.0]
    ledger.close()


def test_a_ledger_of_a_run_that_was_killed_while_it_wrote_can_be_read(tmp_path: Path) -> None:
    """The journal of an unfinished transaction is rolled back, though a read-only connection may not do that."""
    folder, killed = tmp_path / "out", tmp_path / "killed"
    folder.mkdir()
    killed.mkdir()
    ledger = Ledger(folder)
    ledger.enlist("a", Path("a.svs"), 1)
    ledger.flush()
    ledger._db.execute("PRAGMA cache_size=1")
    ledger._db.execute("BEGIN IMMEDIATE")
    for number in range(500):  # more than the cache holds: pages reach the file before the transaction ends
        ledger._db.execute(
            "INSERT INTO slides (name, path, bytes, state) VALUES (?, ?, 1, 'pending')", (f"b{number}", "x" * 500)
        )
    for path in folder.iterdir():
        (killed / path.name).write_bytes(path.read_bytes())
    ledger._db.execute("ROLLBACK")
    ledger.close()
    assert any(path.name.endswith("-journal") for path in killed.iterdir())
    reader = Ledger(killed, read_only=True)
    assert [row.name for row in reader.rows()] == ["a"]
    reader.close()
