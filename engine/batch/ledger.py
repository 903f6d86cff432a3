"""The run's memory: one row a slide in ``nuclix.db``, so that the same command goes on where the last one stopped."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.layout import LEDGER_NAME
from nuclix.engine.errors import OutputError

_FORMAT = 1
# Another process that reads the ledger (``nuclix status``) may hold it for a moment.
_PATIENCE = 30.0
# What SQLite says where it can't write the file, or its journal beside it.
_UNWRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
# Python's way with bytes that are no text; it goes both ways without loss.
_BYTES = "surrogatepass"

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
    record TEXT
)
"""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What the ledger knows of a slide.

    Attributes
    ----------
    name, path : str
        Name of its results and where the slide lies.
    fingerprint, key : str or None
        The slide's content, and what its result depends on (slide, model, settings).
    state : str
        pending, running, done or failed.
    attempts : int
        How often work on it has begun.
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


class Ledger:
    """The ledger of an output folder.

    Parameters
    ----------
    folder : Path
        The output folder, which must be there.
    read_only : bool
        True to look on while a run writes.

    Raises
    ------
    OutputError
        If the ledger can't be opened, is damaged or comes from a newer nuclix.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / LEDGER_NAME
        self._read_only = read_only
        mode = "ro" if read_only else "rwc"
        with self._explained():
            uri = f"{self.path.resolve().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            if not read_only:
                self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > _FORMAT:
                raise OutputError(f"{self.path}: written by a newer nuclix (format {found}); use that version")
            if not read_only:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={_FORMAT}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            said = "" if self._read_only else _why_not_written(error, self.path)
            said = said or f"the ledger can't be used: {error}"
            raise OutputError(f"{self.path}: {said}") from error

    def _do(self, command: str, *values: object) -> sqlite3.Cursor:
        return self._db.execute(command, [_held(value) for value in values])

    def row(self, name: str) -> LedgerRow | None:
        """Return the row of a slide, or None."""
        with self._explained():
            row = self._do("SELECT * FROM slides WHERE name = ?", name).fetchone()
        return _read(row) if row else None

    def rows(self) -> list[LedgerRow]:
        """Return all rows by name."""
        with self._explained():
            return [_read(row) for row in self._db.execute("SELECT * FROM slides ORDER BY name")]

    def enlist(self, name: str, path: Path, size: int) -> None:
        """Make a slide known; a known one keeps its state."""
        with self._explained():
            self._do(
                "INSERT INTO slides (name, path, bytes, state) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET path = excluded.path, bytes = excluded.bytes",
                *(name, str(path), size, PENDING),
            )

    def begin(self, name: str) -> None:
        """Note that work on the slide begins; of an older result nothing is known any more."""
        with self._explained():
            self._do(
                "UPDATE slides SET state = ?, attempts = attempts + 1, begun = ?, ended = NULL, error = NULL, "
                "key = NULL, output = NULL, checksum = NULL, record = NULL WHERE name = ?",
                *(RUNNING, time.time(), name),
            )

    def finish(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Note that the slide is done: after its result bears the final name, never before.

        Parameters
        ----------
        name : str
            The slide.
        outcome : mapping
            ``fingerprint``, ``key``, ``output``, ``checksum`` and ``record``.
        """
        with self._explained():
            self._do(
                "UPDATE slides SET state = ?, ended = ?, error = NULL, fingerprint = ?, key = ?, output = ?, "
                "checksum = ?, record = ? WHERE name = ?",
                *(DONE, time.time()),
                *(outcome[column] for column in ("fingerprint", "key", "output", "checksum")),
                *(json.dumps(outcome["record"]), name),
            )

    def set_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace the record of a finished slide: further files were written from its objects."""
        with self._explained():
            self._do("UPDATE slides SET record = ? WHERE name = ?", json.dumps(record), name)

    def fail(self, name: str, message: str) -> None:
        """Note why the slide has no result."""
        with self._explained():
            self._do(
                "UPDATE slides SET state = ?, ended = ?, error = ? WHERE name = ?", FAILED, time.time(), message, name
            )

    def reset(self, name: str) -> None:
        """Make a slide pending again: it was interrupted, or what it depends on has changed."""
        with self._explained():
            self._do("UPDATE slides SET state = ?, ended = NULL WHERE name = ?", PENDING, name)

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _why_not_written(error: sqlite3.Error, path: Path) -> str:
    """Say what an error of the database means where its own words would lead astray; empty elsewhere."""
    if not path.parent.is_dir():
        return "the output folder is gone"
    name = getattr(error, "sqlite_errorname", "")  # errors of Python's own module have none
    return (
        f"can't be written: {error}; is it, or its folder, read-only or gone?" if name.startswith(_UNWRITABLE) else ""
    )


def _held(value: object) -> object:
    """Return a value as the database can hold it: text of undecodable bytes, such as a file's name, as those bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", _BYTES)
    return value


def _read(row: sqlite3.Row) -> LedgerRow:
    values: dict[str, Any] = {
        name: value.decode("utf-8", _BYTES) if isinstance(value, bytes) else value for name, value in dict(row).items()
    }
    values["record"] = json.loads(values["record"]) if values["record"] else {}
    return LedgerRow(**values)
