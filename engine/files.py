"""Files that are complete or not there."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

TEMPORARY_SUFFIX = ".nuclix.tmp"


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path` for what is to become it; `sweep_temporaries` knows such names."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def sweep_temporaries(folders: Iterable[Path]) -> None:
    """Remove what processes that were killed left half written; only while nobody else writes there.

    Parameters
    ----------
    folders : iterable of Path
        Each is looked at without its sub-folders; need not be there.

    Raises
    ------
    OSError
        If a file can't be removed.
    """
    for folder in folders:
        for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename.

    Raises
    ------
    OSError
        If the folder can't be written; what stood at `path` before still stands.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
