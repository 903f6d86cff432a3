"""Keep copies of files that nuclix did not write, before results of the same name are renamed over them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from nuclix.engine.errors import OutputError
from nuclix.engine.files import checksum


def keep_copies(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Give files a second name under which they survive; the files themselves stay where they are.

    Parameters
    ----------
    paths : sequence of Path
        The files; need not exist.

    Returns
    -------
    tuple of Path
        The copies: ``NAME.bak``, or the first of ``NAME.bak2``, ``NAME.bak3``, ... that is free.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """
    copies = []
    for path in paths:
        if not os.path.lexists(path):
            continue
        try:
            copies.append(_keep_copy(path))
        except OSError as error:
            raise OutputError(f"{error.filename}: can't be copied: {error.strerror}") from error
    return tuple(copies)


def _keep_copy(path: Path) -> Path:
    """Give a file a second name, or copy it where the file system has no links."""
    for free in _backup_names(path):
        if not os.path.lexists(free):
            break
        if not path.is_symlink() and free.is_file() and free.samefile(path):
            return free
    if path.is_symlink():
        path.rename(free)
        return free
    with suppress(OSError):
        os.link(path, free)
        return free
    temporary = free.with_name(f".{free.name}.part")
    shutil.copy2(path, temporary)
    temporary.rename(free)
    return free


def _backup_names(path: Path) -> Iterable[Path]:
    return (path.with_name(f"{path.name}.bak{'' if number == 1 else number}") for number in itertools.count(1))


def drop_copies(copies: Iterable[Path], digests: Collection[str]) -> None:
    """Remove the copies that hold the same bytes as a new result: they were written by a run that was killed."""
    for path in copies:
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and checksum(path) in digests:
                path.unlink()
