"""Finished objects on disk: append-only columns, committed row by row, read back in canonical order.

Each column is a raw file that only grows. `commit` makes everything so far durable and then replaces one small state
file atomically; after a crash, whatever lies past the committed lengths is cut off. Memory stays flat: the columns
are mapped, and only the sort keys of all objects are held.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.objects import Objects, canonical_order, take

# Objects handed to a writer at once: about 20 MB of text.
BLOCK_OBJECTS = 20_000

_STATE = "state.npz"
_FIXED: dict[str, tuple[type, int]] = {
    "first": (np.int64, 2),
    "pixels": (np.int64, 1),
    "ring_counts": (np.int64, 1),
    "shells": (np.bool_, 1),
    "corner_counts": (np.int64, 1),
    "corners": (np.int32, 2),
    "classes": (np.int32, 1),
}


class Spool:
    """The objects of one slide while it is being worked on.

    Parameters
    ----------
    folder : Path
        Where the columns lie; made if missing. A committed spool found there is continued.
    measurements : tuple of str
        Names of the measurements, in the order in which they are written.
    key : str
        What the objects depend on: slide, model, settings. A spool that was committed under another key is begun anew.

    Attributes
    ----------
    state : dict of str to array
        What the last `commit` was given; empty in a fresh spool.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, folder: Path, measurements: tuple[str, ...], key: str) -> None:
        self.folder = folder
        self._key = key
        self._measurements = measurements
        self._types = {**_FIXED, **{f"m{i}": (np.float64, 1) for i in range(len(measurements))}}
        self.state: dict[str, NDArray[np.generic]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lengths = self._load_state()
            self._files = {name: self._open(name, lengths.get(name, 0)) for name in self._types}
        except OSError as error:
            raise OutputError(f"{folder}: can't be written: {error.strerror}") from error

    def _load_state(self) -> dict[str, int]:
        path = self.folder / _STATE
        if not path.exists():
            return {}
        with np.load(path) as state:
            content = dict(state)
        lengths = content.pop("lengths")
        if str(content.pop("key")) != self._key:
            return {}
        self.state = content
        return dict(zip(self._types, lengths.tolist(), strict=True))

    def _open(self, name: str, length: int) -> io.FileIO:
        file = io.FileIO(self.folder / f"{name}.bin", "r+" if (self.folder / f"{name}.bin").exists() else "w+")
        file.truncate(length)
        file.seek(length)
        return file

    def append(self, objects: Objects) -> None:
        """Add objects, in any order.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        columns: dict[str, NDArray[np.generic]] = {
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
                _write_all(self._files[name], np.ascontiguousarray(column, self._types[name][0]))
        except OSError as error:
            raise OutputError(f"{self.folder}: can't be written: {error.strerror}") from error

    def commit(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Make all objects so far durable, together with `state`; both or neither survive a crash.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        try:
            for file in self._files.values():
                os.fsync(file.fileno())
            lengths = np.array([file.tell() for file in self._files.values()], np.int64)
            buffer = io.BytesIO()
            np.savez(buffer, key=np.array(self._key), lengths=lengths, **dict(state))
            replace_file(self.folder / _STATE, buffer.getvalue())
        except OSError as error:
            raise OutputError(f"{self.folder}: can't be written: {error.strerror}") from error

    def blocks(self, size: int = BLOCK_OBJECTS) -> Iterator[Objects]:
        """Yield all objects in canonical order, `size` at a time."""
        everything = self._mapped()
        order = canonical_order(everything.first)
        for start in range(0, len(order), size):
            yield take(everything, order[start : start + size])

    def __len__(self) -> int:
        return self._files["pixels"].tell() // 8

    def _mapped(self) -> Objects:
        columns = {name: self._map(name) for name in self._types}
        return Objects(
            first=columns["first"],
            pixels=columns["pixels"],
            rings=_starts(columns["ring_counts"]),
            shells=columns["shells"],
            offsets=_starts(columns["corner_counts"]),
            corners=columns["corners"],
            classes=columns["classes"],
            measurements={name: columns[f"m{i}"] for i, name in enumerate(self._measurements)},
        )

    def _map(self, name: str) -> NDArray[np.generic]:
        dtype, width = self._types[name]
        shape = (-1, width) if width > 1 else (-1,)
        if self._files[name].tell() == 0:
            return np.zeros(0, dtype).reshape((0, width) if width > 1 else (0,))
        return np.memmap(self.folder / f"{name}.bin", dtype, "r").reshape(shape)

    def close(self) -> None:
        """Close the columns' files; they stay on disk."""
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Close and delete the spool."""
        self.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


def _starts(counts: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _write_all(file: io.FileIO, array: NDArray[np.generic]) -> None:
    """Write every byte: a raw write may stop short, on a full disk for one."""
    view = memoryview(array).cast("B") if array.size else memoryview(b"")
    while view:
        view = view[file.write(view) :]
