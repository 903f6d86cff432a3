"""One run at a time in an output folder."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclix.engine.errors import OutputError, UsageError

LOCK_NAME = ".nuclix.lock"


class FolderLock:
    """Holds an output folder for this process; a lock whose process has died is taken over.

    The lock is a file made exclusively, which also holds on shared folders; it names the host and the process.

    Parameters
    ----------
    folder : Path
        The output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME

    def __enter__(self) -> Self:
        mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": _start_of(os.getpid())})
        try:
            while not self._create(mine):
                holder = self._holder()
                if holder is not None and not _dead(holder):
                    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self._path.stat().st_mtime))
                    raise UsageError(
                        f"{self._path.parent}: another run is at work here (host {holder['host']}, process "
                        f"{holder['pid']}, since {since}); wait for it, or use another output folder. "
                        f"If that host is gone for good, delete {self._path}"
                    )
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written: {error.strerror}") from error
        return self

    def _create(self, content: str) -> bool:
        """Make the lock file with its content in one step; False where it is there already."""
        temporary = self._path.with_name(f"{LOCK_NAME}.{socket.gethostname()}.{os.getpid()}")
        temporary.write_text(content)
        try:
            os.link(temporary, self._path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def _holder(self) -> dict[str, object] | None:
        try:
            return dict(json.loads(self._path.read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds an output folder.

    Attributes
    ----------
    host : str
        The machine.
    pid : int
        The process there.
    alive : bool or None
        Whether it still lives; None on another host, from where that can't be seen.
    """

    host: str
    pid: int
    alive: bool | None


def lock_holder(folder: Path) -> LockHolder | None:
    """Return who holds an output folder, or None where nobody does.

    Parameters
    ----------
    folder : Path
        The output folder; it is only looked at.
    """
    try:
        content = dict(json.loads((folder / LOCK_NAME).read_text()))
        host, pid = str(content["host"]), int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return LockHolder(host, pid, None if host != socket.gethostname() else not _dead(content))


def _dead(holder: dict[str, object]) -> bool:
    """Say whether the holder surely lives no more: it ran on this host, and its process is gone or another's."""
    if holder.get("host") != socket.gethostname():
        return False
    pid = int(str(holder["pid"]))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _start_of(pid) != holder.get("start")


def _start_of(pid: int) -> str:
    """Return when a process began, so that a later one of the same number is not taken for it ('' where unknown)."""
    try:
        # Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so count from its closing bracket.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
