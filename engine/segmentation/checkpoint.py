"""Finished objects on disk: append-only columns, committed row by row, read back in canonical order.

Each column is a raw file that only grows. `commit` makes everything so far durable and then replaces one small state
file atomically; after a crash, whatever lies past the committed lengths is cut off. Memory stays flat: the columns
are mapped, and only the sort keys of all objects are held.

The state file holds a checksum of each column and ends with one of its own, so damaged files are noticed before a slide
is resumed from them.

Whoever opens a checkpoint works in a new attempt, a numbered sub-folder that no other process can have made, and copies
into it what the attempt before had committed. So a worker that was taken for lost but is alive can spoil nothing: its
files are not those that the next one writes, and its next commit fails.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import Interrupted, OutputError
from nuclix.engine.files import sync_folder
from nuclix.engine.segmentation.objects import Objects, canonical_order, take
from nuclix.engine.segmentation.state_file import STATE_NAME, read_state, write_state
from nuclix.ext.ragged import offsets_of

# Objects handed to a writer at once: about 20 MB of text.
BLOCK_OBJECTS = 20_000

log = logging.getLogger("nuclix")

# What reading a state that is missing, damaged or unrecognised may raise.
_UNUSABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)
_COPY_BYTES = 16 << 20  # a column is copied in pieces of this size
_FIXED: dict[str, tuple[type, int]] = {
    "first": (np.int64, 2),
    "pixels": (np.int64, 1),
    "ring_counts": (np.int64, 1),
    "shells": (np.bool_, 1),
    "corner_counts": (np.int64, 1),
    "corners": (np.float32, 2),
    "classes": (np.int32, 1),
}


@dataclass(frozen=True, slots=True)
class _Committed:
    """What an attempt had made durable: bytes and CRC-32 of each column by name, and the state given to `commit`."""

    folder: Path
    key: str
    lengths: dict[str, int]
    sums: dict[str, int]
    state: dict[str, NDArray[Any]]


class _DamagedError(Exception):
    """A column is not what was committed."""


class Checkpoint:
    """The objects of one slide while it is being worked on.

    Parameters
    ----------
    folder : Path
        Folder of the columns; made if missing, but not its parents. A committed checkpoint found there is continued.
    measurements : tuple of str
        Names of the measurements, in the order in which they are written.
    key : str
        What the objects depend on: slide, model, settings. A checkpoint that was committed under another key, or whose
        files are damaged, is discarded.

    Attributes
    ----------
    state : dict of str to array
        What the last `commit` was given; empty in a new checkpoint.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, folder: Path, measurements: tuple[str, ...], key: str) -> None:
        self._root = folder
        self._key = key
        self._measurements = measurements
        self._types = {**_FIXED, **{f"m{i}": (np.float64, 1) for i in range(len(measurements))}}
        self.state: dict[str, NDArray[Any]] = {}
        self._files: dict[str, io.FileIO] = {}
        self._sums = dict.fromkeys(self._types, 0)
        try:
            self.folder = _new_attempt(folder)
        except OSError as error:
            raise OutputError(f"{folder}: can't be written: {error.strerror}") from error
        try:
            self._begin()
            self.check()
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Open the columns, take over what an earlier attempt had committed, and remove the earlier ones."""
        for name in self._types:
            self._files[name] = io.FileIO(self.folder / f"{name}.bin", "w+")
        damaged: set[Path] = set()
        while True:
            usable = [attempt for attempt in self._older() if attempt not in damaged]
            before = _last_committed(usable, self._types)
            if before is None or before.key != self._key:
                break
            try:
                self._copy(before)
            except (FileNotFoundError, _DamagedError) as error:
                # It is damaged, or another worker that was about to take over has just removed it.
                self._truncate()
                if isinstance(error, _DamagedError):
                    damaged.add(before.folder)
                    log.warning("%s: %s; the slide is started again", before.folder, error)
                continue
            self._commit(before.state)
            self.state = before.state
            break
        for older in self._older():
            shutil.rmtree(older, ignore_errors=True)

    def _truncate(self) -> None:
        for file in self._files.values():
            file.seek(0)
            file.truncate()
        self._sums = dict.fromkeys(self._types, 0)

    def _older(self) -> list[Path]:
        mine = _number(self.folder)
        return [attempt for attempt in _attempts(self._root) if _number(attempt) < mine]

    def _copy(self, before: _Committed) -> None:
        """Copy what an attempt had committed.

        Raises
        ------
        _DamagedError
            If a column is not what was committed.
        """
        for name in self._files:
            with (before.folder / f"{name}.bin").open("rb") as source:
                left = before.lengths[name]
                while left:
                    piece = source.read(min(left, _COPY_BYTES))
                    if not piece:
                        raise _DamagedError(f"{name}.bin is too short")
                    self._write(name, np.frombuffer(piece, np.uint8))
                    left -= len(piece)
            if self._sums[name] != before.sums[name]:
                raise _DamagedError(f"{name}.bin has another checksum than when it was written")

    def _write(self, name: str, array: NDArray[Any]) -> None:
        _write_all(self._files[name], array)
        if array.size:
            self._sums[name] = zlib.crc32(memoryview(array.data).cast("B"), self._sums[name])

    def _failure(self, error: OSError) -> OutputError | Interrupted:
        """Return what an error means: the checkpoint is another worker's now, or the folder can't be written."""
        with suppress(OSError):
            if self._root.is_dir() and not self._is_mine():
                return Interrupted(f"{self._root}: another worker has taken this slide over")
        return OutputError(f"{self._root}: can't be written: {error.strerror or error}")

    def append(self, objects: Objects) -> None:
        """Add objects, in any order.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        columns: dict[str, NDArray[Any]] = {
            "first": objects.first,
            "pixels": objects.pixels,
            "ring_counts": np.diff(objects.rings),
            "shells": objects.shells,
            "corner_counts": np.diff(objects.offsets),
            "corners": objects.corners,
            "classes": objects.classes,
        }
        columns |= {f"m{i}": objects.measurements[name] for i, name in enumerate(self._measurements)}
        try:
            for name, column in columns.items():
                self._write(name, np.ascontiguousarray(column, self._types[name][0]))
        except OSError as error:
            raise self._failure(error) from error

    def commit(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Make all objects so far durable, together with `state`; both or neither survive a crash.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        Interrupted
            If another worker has opened this checkpoint since: the slide is now its.
        """
        try:
            self._commit(state)
        except OSError as error:
            raise self._failure(error) from error
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if another worker has opened this checkpoint since, `OutputError` if it is gone."""
        try:
            mine = self._is_mine()
        except OSError as error:
            raise self._failure(error) from error
        if not mine:
            raise Interrupted(f"{self._root}: another worker has taken this slide over")

    def _is_mine(self) -> bool:
        return next(iter(_attempts(self._root)), None) == self.folder

    def _commit(self, state: Mapping[str, NDArray[Any]]) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())
        arrays: dict[str, Any] = {
            "key": np.array(self._key),
            "lengths": np.array([file.tell() for file in self._files.values()], np.int64),
            "sums": np.array(list(self._sums.values()), np.int64),
            **state,
        }
        write_state(self.folder / STATE_NAME, arrays)

    def blocks(self, size: int = BLOCK_OBJECTS) -> Iterator[Objects]:
        """Yield all objects in canonical order, `size` at a time.

        Raises
        ------
        OutputError, Interrupted
            As `check`.
        """
        everything = self.everything()
        order = canonical_order(everything.first)
        for start in range(0, len(order), size):
            yield take(everything, order[start : start + size])

    def __len__(self) -> int:
        return self._files["pixels"].tell() // 8

    def everything(self) -> Objects:
        """Return all objects in the order in which they came; the columns are mapped, not read.

        Raises
        ------
        OutputError, Interrupted
            As `check`.
        """
        columns = {name: self._map(name) for name in self._types}
        return Objects(
            first=columns["first"],
            pixels=columns["pixels"],
            rings=offsets_of(columns["ring_counts"]),
            shells=columns["shells"],
            offsets=offsets_of(columns["corner_counts"]),
            corners=columns["corners"],
            classes=columns["classes"],
            measurements={name: columns[f"m{i}"] for i, name in enumerate(self._measurements)},
        )

    def _map(self, name: str) -> NDArray[Any]:
        dtype, width = self._types[name]
        shape = (-1, width) if width > 1 else (-1,)
        if self._files[name].tell() == 0:
            return np.zeros(0, dtype).reshape((0, width) if width > 1 else (0,))
        try:
            return np.memmap(self.folder / f"{name}.bin", dtype, "r").reshape(shape)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the columns' files; they stay on disk."""
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Close and delete the checkpoint."""
        self.close()
        shutil.rmtree(self._root)


def committed_key(folder: Path) -> str | None:
    """Return the key under which the checkpoint in `folder` was last committed, or None.

    Parameters
    ----------
    folder : Path
        A checkpoint's; need not exist.
    """
    for attempt in _attempts(folder):
        try:
            return str(read_state(attempt)["key"])
        except _UNUSABLE:
            continue
    return None


def _number(attempt: Path) -> int:
    return int(attempt.name)


def _attempts(folder: Path) -> list[Path]:
    """Return the attempts in a checkpoint's folder, the latest first; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=_number, reverse=True)


def _new_attempt(folder: Path) -> Path:
    """Make the folder of an attempt that nobody else has; making a folder succeeds for one process only."""
    folder.mkdir(exist_ok=True)
    while True:
        number = max(map(_number, _attempts(folder)), default=0) + 1
        path = folder / f"{number:06d}"
        with suppress(FileExistsError):
            path.mkdir()
            sync_folder(folder)
            return path


def _last_committed(attempts: list[Path], types: Mapping[str, tuple[type, int]]) -> _Committed | None:
    """Return what the latest of the attempts that is not damaged had committed.

    They are read from the earliest on: one that is just being removed was copied and committed by a later one
    before that, which is still to come.
    """
    last = None
    for attempt in reversed(attempts):
        try:
            state = read_state(attempt)
            lengths = dict(zip(types, state.pop("lengths").tolist(), strict=True))
            sums = dict(zip(types, state.pop("sums").tolist(), strict=True))
            whole = all((attempt / f"{name}.bin").stat().st_size >= length for name, length in lengths.items())
            key = str(state.pop("key"))
        except _UNUSABLE:
            continue
        if whole:
            last = _Committed(attempt, key, lengths, sums, state)
    return last


def _write_all(file: io.FileIO, array: NDArray[Any]) -> None:
    """Write every byte: a raw write may stop short, on a full disk for one."""
    view = memoryview(array.data).cast("B") if array.size else memoryview(b"")
    while view:
        view = view[file.write(view) :]
