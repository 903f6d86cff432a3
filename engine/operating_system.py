"""What nuclix asks of the operating system: locks, processes, signals and memory, on Linux and macOS.

Everything that differs between systems, or that Windows does not have, is here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOT_WINDOWS = "nuclix runs on Linux and macOS; on Windows, install it in WSL 2 (Ubuntu) and run it there"
_BYTES_PER_KIB = 1024


def unsupported() -> str | None:
    """Return why nuclix does not run on this operating system, or None where it does."""
    return _NOT_WINDOWS if sys.platform == "win32" else None


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time through, where the file system has kernel locks (flock)."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def process_namespace() -> str:
    """Return the namespace of process numbers, which containers of a host have of their own; '' where unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (a link to no file)
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """Return the start time of a process, which tells it from a later one with the same number.

    'ended' for a zombie; '' where nothing is known.
    """
    try:
        # Fields of /proc/PID/stat from the third; the name in the second may hold spaces, so count from its bracket.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "ended" if state in "ZX" else fields[18]
    except (OSError, IndexError, ValueError):
        return ""


def process_ended(pid: int, start: str) -> bool:
    """Return whether the process that had this number and start time on this machine has certainly ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return process_start(pid) != start


@contextmanager
def stop_signals_wait() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM; processes that are started meanwhile have them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals() -> None:
    """Ignore SIGINT and SIGTERM in this process from now on, and no longer hold them back."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def peak_memory() -> dict[str, int]:
    """Return the largest resident memory so far, in bytes: of this process, and of its largest finished child.

    A child counts with at least the memory that this process had when it started the child.
    """
    import resource

    unit = 1 if sys.platform == "darwin" else _BYTES_PER_KIB
    return {
        "process_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "child_bytes": unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
