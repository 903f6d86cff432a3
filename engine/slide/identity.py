"""Tell whether the files of a slide are those that a result was made from.

Size and modification time are compared first, which costs one look at the folder. Where they differ, the contents
decide: samples of the file (`fingerprint`), then a digest of the place and length of every tile and of more samples
(`quick_digest`), or on demand the SHA-256 of every byte (`content_hash`).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from nuclix.engine.errors import Interrupted, SlideError

_CHUNK = 4 << 20  # bytes hashed between two looks at a request to stop
# A quick digest reads so many samples of so many bytes, spread evenly: 4 MB. Where one tile in a hundred was
# overwritten, all of them miss it with a probability of 0.99^1024 = 0.00003.
_SAMPLES, _SAMPLE_BYTES = 1024, 4096
_QUICK = "quick"  # what a quick digest begins with
# Formats whose file is only a preview or an index: the pixels are in a folder of the same name.
_DATA_FOLDERS = {".mrxs": "{stem}", ".vsi": "_{stem}_"}


@dataclass(frozen=True, slots=True)
class SlideState:
    """The files of a slide as a folder lists them.

    Attributes
    ----------
    size : int
        Bytes of all files.
    text : str
        Changes when a file changes its size or its modification time.
    """

    size: int
    text: str


def slide_files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold a slide: itself and those in its folder of data, or all of a folder."""
    if path.is_dir():
        return tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    pattern = _DATA_FOLDERS.get(path.suffix.lower())
    if pattern is None:
        return (path,)
    folder = path.with_name(pattern.format(stem=path.stem))
    return (path, *sorted(file for file in folder.rglob("*") if file.is_file()))


def file_state(path: Path) -> str:
    """Return size and modification time of a file as text.

    Raises
    ------
    OSError
        If it can't be looked at.
    """
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}"


def slide_state(path: Path) -> SlideState:
    """Return size and modification times of a slide's files.

    Raises
    ------
    SlideError
        If they can't be looked at.
    """
    try:
        files = slide_files(path)
        states = [file_state(file) for file in files]
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    size = sum(int(state.partition(":")[0]) for state in states)
    if len(files) == 1:
        return SlideState(size, states[0])
    names = [file.relative_to(path) if path.is_dir() else file.name for file in files]
    listing = "\n".join(f"{os.fsencode(name)!r} {state}" for name, state in zip(names, states, strict=True))
    return SlideState(size, f"{len(files)} files:{hashlib.sha256(listing.encode()).hexdigest()}")


def content_hash(path: Path, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Return the SHA-256 of all bytes of a slide's files.

    Parameters
    ----------
    path : Path
        The slide.
    should_stop : callable
        Is asked every few megabytes.

    Raises
    ------
    SlideError
        If a file can't be read.
    Interrupted
        If `should_stop` says so.
    """
    digest = hashlib.sha256()
    try:
        for file_path in slide_files(path):
            with file_path.open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    if should_stop():
                        raise Interrupted(f"{path}: hashing was interrupted")
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    return digest.hexdigest()


@runtime_checkable
class TileIndexed(Protocol):
    """A slide reader that knows where in the file the bytes of every tile lie."""

    def tile_index(self) -> str:
        """Return a digest of the offset and length of every tile of every level."""
        ...


def quick_digest(path: Path, reader: object, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Return a digest that sees where each tile of a slide lies, how long it is, and samples of the bytes.

    A tile that is compressed to another length moves those after it, so that a slide which was scanned or exported
    again differs. It costs 4 MB of reading.

    Parameters
    ----------
    path : Path
        The slide.
    reader : SlideReader
        Its reader; one that is not `TileIndexed` adds nothing to the samples.
    should_stop : callable
        Is asked for each file.

    Returns
    -------
    str
        ``quick``, the reader's class, the digest of its index and that of the samples, joined by colons.

    Raises
    ------
    SlideError
        If a file can't be read.
    Interrupted
        If `should_stop` says so.
    """
    index = reader.tile_index() if isinstance(reader, TileIndexed) else ""
    digest = hashlib.sha256()
    try:
        files = slide_files(path)
        samples = max(1, _SAMPLES // len(files))
        for file_path in files:
            if should_stop():
                raise Interrupted(f"{path}: hashing was interrupted")
            with file_path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                last = max(0, size - _SAMPLE_BYTES)
                for place in sorted({last * step // max(1, samples - 1) for step in range(samples)}):
                    file.seek(place)
                    digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    return f"{_QUICK}:{type(reader).__name__}:{index}:{digest.hexdigest()}"


def is_quick(content: str) -> bool:
    """Return whether `content` is a quick digest, and not the SHA-256 of every byte."""
    return content.startswith(f"{_QUICK}:")


def agree(one: str, other: str) -> bool:
    """Return whether two quick digests are of one content; the indices of different readers are not compared."""
    _, reader, index, samples = one.split(":")
    _, other_reader, other_index, other_samples = other.split(":")
    return samples == other_samples and (index == other_index or reader != other_reader)


class ContentHash:
    """The digest of a slide's bytes, computed in the background while the slide is segmented.

    Parameters
    ----------
    path : Path
        The slide.
    reader : SlideReader
        Its reader.
    full : bool
        Whether every byte is hashed, in place of the quick digest.
    """

    def __init__(self, path: Path, reader: object, *, full: bool = False) -> None:
        self._path = path
        self._reader = None if full else reader
        self._stop = threading.Event()
        self._done = threading.Event()
        self._digest = ""
        self._error: SlideError | None = None
        threading.Thread(target=self._run, name="nuclix-hash", daemon=True).start()

    def _run(self) -> None:
        try:
            if self._reader is None:
                self._digest = content_hash(self._path, self._stop.is_set)
            else:
                self._digest = quick_digest(self._path, self._reader, self._stop.is_set)
        except Interrupted:
            pass
        except SlideError as error:
            self._error = error
        finally:
            self._done.set()

    def result(self, waiting: Callable[[], None]) -> str:
        """Wait for the hash.

        Parameters
        ----------
        waiting : callable
            Is called every second meanwhile; may raise to give up.

        Raises
        ------
        SlideError
            If the slide can't be read.
        """
        while not self._done.wait(1.0):
            waiting()
        if self._error is not None:
            raise self._error
        return self._digest

    def cancel(self) -> None:
        """Stop hashing."""
        self._stop.set()
