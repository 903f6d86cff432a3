"""Write to stdout and stderr: whatever their encoding, without control characters, and although they may be gone."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from nuclix.engine.progress.text import printable


def stderr_line(line: str) -> None:
    """Write a line to stderr.

    Raises
    ------
    OSError
        If stderr is full or gone.
    """
    _write(sys.stderr, line)


def stdout_line(line: str) -> None:
    """Write a line to stdout; if nobody reads it any more, nothing else is written there."""
    try:
        _write(sys.stdout, line)
    except OSError:
        # Python flushes stdout once more at exit: give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "ascii"
    stream.write(printable(line).encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
