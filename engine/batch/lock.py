"""One run at a time in an output folder."""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclix.engine.batch.layout import LOCK_NAME
from nuclix.engine.errors import OutputError, UsageError
from nuclix.engine.files import is_transient
from nuclix.engine.operating_system import locked_folder, process_ended, process_namespace, process_start

_LOOK_INTERVAL = 5.0  # seconds
# A share may fail to show the lock for so long, in seconds, before it counts as lost.
_GRACE = 120.0
# How file systems without hard links (exFAT, some network shares) refuse one.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


class FolderLock:
    """Holds an output folder for this process; the lock of a process that has died is taken over.

    The lock is a file created exclusively, which also works on shared folders; it names the host and the process.

    Parameters
    ----------
    folder : Path
        The output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._mine = json.dumps({**_place(), "pid": os.getpid(), "start": process_start(os.getpid())})
        self._looked = 0.0
        self._seen = time.monotonic()

    def __enter__(self) -> Self:
        try:
            # A lock counts as stale only on the machine where it was made: a second process there must not remove one
            # that the first has already replaced. Without kernel locks the risk lasts a few microseconds.
            with locked_folder(self._path.parent):
                while not self._create():
                    self._take_away()
                self._sweep()
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written: {error.strerror}") from error
        return self

    def _sweep(self) -> None:
        """Remove unfinished lock files of processes of this machine that were killed."""
        for path in self._path.parent.glob(f"{LOCK_NAME}.{glob.escape(socket.gethostname())}.*"):
            path.unlink(missing_ok=True)

    def _take_away(self) -> None:
        """Remove the lock of a dead process; raise `UsageError` for that of a living one."""
        holder = self._holder()
        if holder is not None and not _dead(holder):
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self._path.stat().st_mtime))
            raise UsageError(
                f"{self._path.parent}: another nuclix run is using this output folder (host {holder['host']}, process "
                f"{holder['pid']}, since {since}); wait for it, or use another output folder. "
                f"If that host is gone for good, delete {self._path}"
            )
        self._path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Return whether the lock is still this run's; reads it every few seconds at most.

        A share that does not answer for a moment does not end the run: only another content, a folder that is gone,
        or errors for two minutes do.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_INTERVAL:
            return True
        self._looked = now
        try:
            held = self._path.read_text() == self._mine
        except FileNotFoundError:
            return False
        except OSError as error:
            if is_transient(error):
                return now - self._seen < _GRACE
            return False
        self._seen = now
        return held

    def _create(self) -> bool:
        """Create the lock file with its content in one step; return False if it exists."""
        token = f"{os.getpid()}.{secrets.token_hex(4)}"  # nobody can have planted a link of that name
        temporary = self._path.with_name(f"{LOCK_NAME}.{socket.gethostname()}.{token}")
        try:
            with temporary.open("x") as file:
                file.write(self._mine)
            os.link(temporary, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_without_link()
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_without_link(self) -> bool:
        try:
            with self._path.open("x") as file:
                file.write(self._mine)
        except FileExistsError:
            return False
        return True

    def _holder(self) -> dict[str, object] | None:
        try:
            content = json.loads(self._path.read_text())
            host, pid = str(content["host"]), int(content["pid"])
        except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return {**content, "host": host, "pid": pid}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            if self._path.read_text() == self._mine:
                self._path.unlink()


def _place() -> dict[str, str]:
    """Return the machine and its process namespace: each container of a host may have its own process numbers."""
    return {"host": socket.gethostname(), "namespace": process_namespace()}


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that holds an output folder.

    Attributes
    ----------
    host : str
        The machine.
    pid : int
        The process there.
    alive : bool or None
        Whether it still runs; None where that is not known: on another host or in another container.
    """

    host: str
    pid: int
    alive: bool | None


def lock_holder(folder: Path) -> LockHolder | None:
    """Return who holds an output folder, or None where nobody does.

    Parameters
    ----------
    folder : Path
        The output folder; it is only read.
    """
    try:
        content = dict(json.loads((folder / LOCK_NAME).read_text()))
        host, pid = str(content["host"]), int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    near = all(content.get(name) == value for name, value in _place().items())
    return LockHolder(host, pid, not _dead(content) if near else None)


def _dead(holder: dict[str, object]) -> bool:
    """Return whether the holder has certainly ended: it ran on this host, and its process is gone or another one."""
    if any(holder.get(name, value) != value for name, value in _place().items()):
        return False
    return process_ended(int(str(holder["pid"])), str(holder.get("start")))
