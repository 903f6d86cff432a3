"""Files that are complete or do not exist, and errors of file systems that pass."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

TEMPORARY_SUFFIX = ".nuclix.tmp"
# Errors of a network share or a disk that may be gone a moment later.
TRANSIENT = frozenset(
    (
        *(errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EREMOTEIO),
        *(errno.ENOTCONN, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
    )
)
# Pauses before another attempt after a transient error, in seconds: a minute in all.
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# How file systems refuse to flush a folder; some network shares can't, and SQLite ignores it too.
_NO_FOLDER_SYNC = frozenset(
    (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR)
)


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, is an error of the file system that may pass."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            return True
        error = error.__cause__ or error.__context__
    return False


def temporary_name(path: Path) -> Path:
    """Return a hidden name in the folder of `path` for a file that will be renamed to it."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def sweep_temporaries(folders: Iterable[Path]) -> None:
    """Remove unfinished files of processes that were killed; only while nobody else writes there.

    Parameters
    ----------
    folders : iterable of Path
        Each is searched without its sub-folders; need not exist.

    Raises
    ------
    OSError
        If a file can't be removed.
    """
    for folder in folders:
        for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` under a temporary name in the folder of `path`, flush it to disk, then rename.

    Parameters
    ----------
    path : Path
        The file. A link of this name is replaced, not followed.
    content : bytes
        Its content.
    durable : bool
        False for files that can be made again: nothing is flushed, which saves the time of two waits for the disk.

    Raises
    ------
    OSError
        If the folder can't be written; a file that was at `path` is still there.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user named on the command line.

    A regular file is replaced as a whole. A device or a FIFO is written to, and so is the target of a link.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    content : bytes
        Its content.

    Raises
    ------
    OSError
        If it can't be written.
    """
    is_device = path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",))
    if is_device or (path.exists() and not path.is_file()):
        with path.open("ab") as stream:
            stream.write(content)
        return
    replace_file(path.resolve() if path.is_symlink() else path, content)


def open_at_once(path: str, flags: int) -> int:
    """Open a file, for `open`'s argument ``opener``: a FIFO is not waited for, whoever is at its other end.

    Raises
    ------
    OSError
        If it can't be opened; of a FIFO to write also if nobody reads it.
    """
    handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(handle, True)
    return handle


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a file that the user named, which may be a FIFO or a device.

    Raises
    ------
    OSError
        If it can't be read.
    ValueError
        If it holds more than `limit` bytes.
    """
    with open(path, "rb", opener=open_at_once) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it holds more than {limit:,} bytes")
    return content


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
