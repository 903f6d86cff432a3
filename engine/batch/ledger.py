"""The ledger of an output folder: one row per slide in ``nuclix.db``, so that the same command resumes a run."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nuclix.engine.batch.layout import LEDGER_NAME
from nuclix.engine.errors import OutputError
from nuclix.engine.files import BACK_OFF

_FORMAT = 2
# Another process that reads the ledger (``nuclix status``) may lock it for a moment; in seconds.
_BUSY_TIMEOUT = 30.0
# Errors of SQLite where it can't write the file, or its journal in the same folder.
# SQLite's name of a read-only connection that finds the journal of a transaction which was never finished.
_NEEDS_ROLLBACK = "SQLITE_READONLY_ROLLBACK"
_UNWRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
# Errors of SQLite that pass: a network share that does not answer for a moment.
_TRANSIENT = ("SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_BUSY", "SQLITE_LOCKED")
# Python's error handler for bytes that are not text; it converts in both directions without loss.
_BYTES = "surrogatepass"
# Changes without weight of their own (a slide was started) are written this much later, in seconds.
_DEFER = 1.0

PENDING, RUNNING, DONE, FAILED = "pending", "running", "done", "failed"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS slides (
    name TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    fingerprint TEXT,
    key TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    output TEXT,
    checksum TEXT,
    begun REAL,
    ended REAL,
    record TEXT,
    slide_state TEXT,
    content TEXT,
    output_state TEXT
)
"""
# Columns that format 1 did not have.
_ADDED = ("slide_state", "content", "output_state")


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A slide in the ledger.

    `fingerprint`, `key`, `output`, `checksum`, `record` and the last three attributes describe its latest result,
    whatever has happened since.

    Attributes
    ----------
    name, path : str
        Name of its results, and path of the slide.
    fingerprint, key : str or None
        The slide's content, and what its result depends on (slide, model, settings).
    state : str
        pending, running, done or failed.
    attempts : int
        How often processing has started.
    bytes : int
        Size of the slide's file.
    error : str or None
        Why it failed.
    output, checksum : str or None
        The result's file name and SHA-256.
    begun, ended : float or None
        Seconds since 1970.
    record : dict
        The slide's record, empty before it is done.
    slide_state, output_state : str or None
        Size and modification time of the slide and of its result.
    content : str or None
        Digest of the slide's bytes: see `nuclix.engine.slide.identity`.
    """

    name: str
    path: str
    fingerprint: str | None
    key: str | None
    state: str
    attempts: int
    bytes: int
    error: str | None
    output: str | None
    checksum: str | None
    begun: float | None
    ended: float | None
    record: Mapping[str, Any]
    slide_state: str | None = None
    content: str | None = None
    output_state: str | None = None


_NUMBERS = ("attempts", "bytes", "begun", "ended")
_REQUIRED = ("name", "path", "state", "attempts", "bytes")
# What SQLite may return for each column; it does not enforce the types of the schema.
_TYPES: dict[str, tuple[type, ...]] = {
    item.name: ((int, float) if item.name in _NUMBERS else (str,)) + (() if item.name in _REQUIRED else (type(None),))
    for item in fields(LedgerRow)
}


class Ledger:
    """The ledger of an output folder.

    Parameters
    ----------
    folder : Path
        The output folder, which must exist.
    read_only : bool
        True to read while a run writes.

    Raises
    ------
    OutputError
        If the ledger can't be opened, is damaged or comes from a newer nuclix.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / LEDGER_NAME
        self._read_only = read_only
        self._pending: list[tuple[str, tuple[object, ...]]] = []
        self._pending_since = 0.0
        mode = "ro" if read_only else "rwc"
        with self._explained():
            uri = f"{self.path.resolve().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            if not read_only:
                self._db.execute("PRAGMA synchronous=FULL")
            found = self._format()
            if found > _FORMAT:
                raise OutputError(f"{self.path}: written by a newer nuclix (format {found}); use that version")
            if not read_only:
                self._prepare(found)
            columns = {row["name"] for row in self._db.execute("PRAGMA table_info(slides)")}
            missing = {item.name for item in fields(LedgerRow)} - columns - set(_ADDED)
            if missing:
                raise OutputError(
                    f"{self.path}: is not a ledger of nuclix (no column {', '.join(sorted(missing))}); "
                    "move it away, or use another output folder"
                )

    def _format(self) -> int:
        """Return the format of the database; roll back what a killed run left, which a reader may not do itself."""
        try:
            return int(self._db.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.OperationalError as error:
            if not self._read_only or getattr(error, "sqlite_errorname", "") != _NEEDS_ROLLBACK:
                raise
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT)) as db:
            db.execute("SELECT count(*) FROM sqlite_master")
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _prepare(self, found: int) -> None:
        """Create the table, or add the columns that an older nuclix did not have."""
        self._db.execute(_SCHEMA)
        if found < _FORMAT:
            columns = {row["name"] for row in self._db.execute("PRAGMA table_info(slides)")}
            for name in _ADDED:
                if name not in columns:
                    self._db.execute(f"ALTER TABLE slides ADD COLUMN {name} TEXT")
            self._db.execute(f"PRAGMA user_version={_FORMAT}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            said = "" if self._read_only else _why_not_written(error, self.path)
            said = said or f"the ledger can't be used: {error}"
            raise OutputError(f"{self.path}: {said}") from error

    def _read(self, command: str, *values: object) -> list[LedgerRow]:
        self.flush()
        with self._explained():
            found = self._db.execute(command, [_encoded(value) for value in values]).fetchall()
            return [_row(row, self.path) for row in found]

    def _write(self, command: str, *values: object) -> None:
        """Execute a command in one transaction with those that were deferred; retry while a share does not answer."""
        self._pending.append((command, values))
        self.flush()

    def _defer(self, command: str, *values: object) -> None:
        """Execute a command some time later: each transaction waits for the disk several times."""
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append((command, values))

    def flush(self, *, due_only: bool = False) -> None:
        """Write what was deferred.

        Parameters
        ----------
        due_only : bool
            Only if it has waited for long enough.

        Raises
        ------
        OutputError
            If the ledger can't be written.
        """
        if not self._pending or (due_only and time.monotonic() - self._pending_since < _DEFER):
            return
        with self._explained():
            for pause in (*BACK_OFF, None):
                try:
                    self._commit()
                    break
                except sqlite3.OperationalError as error:
                    passes = getattr(error, "sqlite_errorname", "").startswith(_TRANSIENT)
                    if pause is None or not passes or not self.path.parent.is_dir():
                        raise
                    time.sleep(pause)

    def _commit(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for command, values in self._pending:
                self._db.execute(command, [_encoded(value) for value in values])
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._pending.clear()

    def row(self, name: str) -> LedgerRow | None:
        """Return the row of a slide, or None."""
        return next(iter(self._read("SELECT * FROM slides WHERE name = ?", name)), None)

    def rows(self) -> list[LedgerRow]:
        """Return all rows by name."""
        return self._read("SELECT * FROM slides ORDER BY name")

    def paths_of_results(self) -> dict[str, str]:
        """Return the paths of the slides that have results, by name; their records, which take longer, are not read."""
        with self._explained():
            found = self._db.execute("SELECT name, path FROM slides WHERE output IS NOT NULL").fetchall()
        texts = ([_decoded(value) for value in row] for row in found)
        return {name: path for name, path in texts if isinstance(name, str) and isinstance(path, str)}

    def enlist(self, name: str, path: Path, size: int) -> None:
        """Add a slide; a known one keeps its state. Written with the next change, or by `flush`."""
        self._defer(
            "INSERT INTO slides (name, path, bytes, state) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET path = excluded.path, bytes = excluded.bytes "
            "WHERE path <> excluded.path OR bytes <> excluded.bytes",
            *(name, str(path), size, PENDING),
        )

    def begin(self, name: str) -> None:
        """Record that processing of a slide starts; written with the next change, or by `flush`.

        An older result stays in the row until the new one takes its place.
        """
        self._defer(
            "UPDATE slides SET state = ?, attempts = attempts + 1, begun = ?, ended = NULL, error = NULL "
            "WHERE name = ?",
            *(RUNNING, time.time(), name),
        )

    def finish(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Record that the slide is done: after its result has the final name, never before.

        Parameters
        ----------
        name : str
            The slide.
        outcome : mapping
            ``fingerprint``, ``key``, ``output``, ``checksum`` and ``record``; may have ``slide_state``, ``content``
            and ``output_state``.
        """
        columns = ("fingerprint", "key", "output", "checksum", *_ADDED)
        self._write(
            f"UPDATE slides SET state = ?, ended = ?, error = NULL, {', '.join(f'{name} = ?' for name in columns)}, "
            "record = ? WHERE name = ?",
            *(DONE, time.time()),
            *(outcome.get(column) for column in columns),
            *(json.dumps(outcome["record"]), name),
        )

    def confirm(self, name: str, states: Mapping[str, str]) -> None:
        """Record that an earlier result of the slide is still valid.

        Parameters
        ----------
        name : str
            The slide.
        states : mapping
            ``slide_state`` and ``output_state`` as they are now.
        """
        self._defer(
            "UPDATE slides SET state = ?, error = NULL, slide_state = ?, output_state = ? WHERE name = ?",
            *(DONE, states["slide_state"], states["output_state"], name),
        )

    def set_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace the record of a finished slide: further files were written from its objects."""
        with self._explained():
            self._write("UPDATE slides SET record = ? WHERE name = ?", json.dumps(record), name)

    def fail(self, name: str, message: str) -> None:
        """Record why the slide has no result."""
        self._write(
            "UPDATE slides SET state = ?, ended = ?, error = ? WHERE name = ?", FAILED, time.time(), message, name
        )

    def reset(self, name: str) -> None:
        """Make a slide pending again: it was interrupted."""
        self._write("UPDATE slides SET state = ?, ended = NULL WHERE name = ?", PENDING, name)

    def close(self) -> None:
        """Write what was deferred, and close the database."""
        try:
            self.flush()
        finally:
            self._db.close()


def known_slides(folder: Path) -> dict[str, str]:
    """Return the paths of the slides in the ledger of an output folder, by name; empty where there is none."""
    if not (folder / LEDGER_NAME).is_file():
        return {}
    ledger = Ledger(folder, read_only=True)
    try:
        return ledger.paths_of_results()
    finally:
        ledger.close()


def _why_not_written(error: sqlite3.Error, path: Path) -> str:
    """Return a message for an error of the database whose own text would mislead; empty for others."""
    if not path.parent.is_dir():
        return "the output folder is gone"
    name = getattr(error, "sqlite_errorname", "")  # errors of Python's own module have none
    return (
        f"can't be written: {error}; is it, or its folder, read-only or gone?" if name.startswith(_UNWRITABLE) else ""
    )


def _encoded(value: object) -> object:
    """Return a value as the database can store it: text with undecodable bytes, such as a file's name, as bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", _BYTES)
    return value


def _decoded(value: object) -> Any:
    """Return a value as it was before `_encoded`."""
    return value.decode("utf-8", _BYTES) if isinstance(value, bytes) else value


def _row(row: sqlite3.Row, path: Path) -> LedgerRow:
    column = ""
    values: dict[str, Any] = {}
    try:
        for column, value in dict(row).items():
            if column in _TYPES:
                values[column] = _decoded(value)
                if not isinstance(values[column], _TYPES[column]):
                    raise ValueError(f"a value of the wrong type, {values[column]!r}")
        column = "record"
        values["record"] = json.loads(values["record"]) if values["record"] else {}
        if not isinstance(values["record"], dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"{path}: the ledger is damaged ({column} of {values.get('name', 'a slide')}: {error}); "
            "move it away: results are recognised by their records"
        ) from error
    return LedgerRow(**values)
