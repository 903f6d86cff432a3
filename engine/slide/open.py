"""Open a slide file with the reader that recognises it, identify it and look up its scale."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from nuclix.engine import registry
from nuclix.engine.contracts import SlideInfo, SlideReader
from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Scale
from nuclix.engine.run_config import COARSEST_MPP, FINEST_MPP

FINEST_UM, COARSEST_UM = FINEST_MPP, COARSEST_MPP
T = TypeVar("T")
CHUNK = 64 << 10  # bytes a fingerprint takes at each place
CHUNKS = 16  # places between the head and the tail of a file that a fingerprint looks at


def open_slide(path: str | Path, reader: str | None = None) -> SlideReader:
    """Open a slide with the reader that recognises its content, the highest priority first.

    A reader that recognises a file may find that it can't read it although it is intact, such as Ventana tiles that
    overlap; the next reader that recognises the file is tried then.

    Parameters
    ----------
    path : str or Path
        The file.
    reader : str or None
        Name of the reader to use, whatever others recognise; None to choose by content.

    Returns
    -------
    SlideReader

    Raises
    ------
    SlideError
        If the file is missing, a folder, empty, unreadable, recognised by no reader, or damaged.
    PluginError
        If there is no reader of that name.
    """
    return with_reader(Path(path), reader, lambda kind, path: kind.open(path))


def with_reader(path: Path, reader: str | None, use: Callable[[type[SlideReader], Path], T]) -> T:
    """Return what `use` makes of a slide and the reader that recognises it; see `open_slide`.

    Parameters
    ----------
    path : Path
        The file.
    reader : str or None
        Name of the reader to use; None to choose by content.
    use : callable
        Is called with a reader's class and the path; where it raises `UnsupportedSlideError`, the next reader is tried.
    """
    readers = installed_readers() if reader is None else (_reader(reader),)
    if not _is_folder_of_a_reader(path, readers):
        check_file(path)
    if reader is not None:
        return use(readers[0], path)
    refused: UnsupportedSlideError | None = None
    for kind in sorted(readers, key=lambda kind: -kind.priority):  # stable: readers of one priority by name
        try:
            if kind.recognises(path):
                return use(kind, path)
        except UnsupportedSlideError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    raise SlideError(
        f"{path}: not an image that any installed reader recognises (readers: "
        f"{', '.join(registry.names(registry.READERS))})"
    )


def installed_readers() -> tuple[type[SlideReader], ...]:
    """Return the installed readers, by name."""
    return tuple(cast(type[SlideReader], kind) for kind in registry.load_all(registry.READERS).values())


def _reader(name: str) -> type[SlideReader]:
    return cast(type[SlideReader], registry.load(registry.READERS, name))


def is_recognised(path: Path, readers: Sequence[type[SlideReader]]) -> bool:
    """Return whether any of the readers recognises a file or folder by its content."""
    for kind in readers:
        with suppress(OSError):  # of a folder, or of a file that can't be read
            if kind.recognises(path):
                return True
    return False


def _is_folder_of_a_reader(path: Path, readers: Sequence[type[SlideReader]]) -> bool:
    """Return whether `path` is a folder that is one slide, such as an OME-Zarr."""
    return path.is_dir() and is_recognised(path, readers)


def check_file(path: Path) -> None:
    """Raise `SlideError` unless `path` is a file that has content and can be read."""
    if path.is_dir():
        raise SlideError(f"{path}: is a folder, not a slide; name the slides in it, or {path / '*'}")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO waits for a writer, a device may have no end
            kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
            raise SlideError(f"{path}: is {kind}, not a file; name a slide")
        with path.open("rb") as file:
            if not file.read(1):
                raise SlideError(f"{path}: is empty (0 bytes); copy the slide again")
    except FileNotFoundError:
        raise SlideError(f"{path}: no such file") from None
    except PermissionError:
        raise SlideError(f"{path}: may not be read by this user; change its permissions") from None
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error


def fingerprint(path: Path) -> str:
    """Identify a slide by its content: SHA-256 of its size, head, tail and chunks spread between them.

    Copies have one fingerprint wherever they lie and whenever they were made; it costs one megabyte of reading.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SlideError
        If the file can't be read.
    """
    if _is_folder_of_a_reader(path, installed_readers()):
        return _folder_fingerprint(path)
    check_file(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            last = max(0, size - CHUNK)
            for place in sorted({last * step // (CHUNKS + 1) for step in range(CHUNKS + 2)}):
                file.seek(place)
                digest.update(file.read(CHUNK))
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    return digest.hexdigest()


def _folder_fingerprint(path: Path) -> str:
    """Identify a slide that is a folder: SHA-256 of names and sizes of its files, and of samples of them."""
    digest = hashlib.sha256()
    try:
        files = [(file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file()]
        files.sort()
        for name, file in files:
            digest.update(f"{os.fsencode(name)!r} {file.stat().st_size}\n".encode())
        for place in sorted({(len(files) - 1) * step // CHUNKS for step in range(CHUNKS + 1)}):
            with files[place][1].open("rb") as content:
                digest.update(content.read(CHUNK))
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    return digest.hexdigest()


def slide_scale(info: SlideInfo, override_mpp: float | None = None) -> Scale:
    """Return a slide's scale at level 0; see `resolve_scale` for the scales that a user may give.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    override_mpp : float or None
        um/px to use whatever the file states.

    Returns
    -------
    Scale

    Raises
    ------
    SlideError
        If neither is known, or if the scale is not one that a microscope has.
    """
    if override_mpp is not None:
        return _plausible(info.path, override_mpp, "the given scale is")
    if info.scale is None:
        raise SlideError(
            f"{info.path}: states no scale; give it with --mpp (um/px at full resolution), or per slide with --slides"
        )
    return _plausible(info.path, info.scale.mpp, "the file states")


def _plausible(path: Path, um: float, source: str) -> Scale:
    if not FINEST_UM <= um <= COARSEST_UM:
        raise SlideError(
            f"{path}: {source} {um:g} um/px, which is outside {FINEST_UM:g} to {COARSEST_UM:g} um/px; "
            "give the right scale with --force-mpp, or per slide with --slides"
        )
    return Scale(um)
