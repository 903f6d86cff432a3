"""A file that is complete under its final name or not there, written piece by piece."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nuclix.engine.errors import OutputError
from nuclix.engine.files import sync_folder, temporary_name


class PendingFile:
    """A file that is written under a temporary name in its own folder until `commit` gives it its final name.

    Parameters
    ----------
    path : Path
        The final name.

    Attributes
    ----------
    file : BinaryIO
        For reading and writing; writes through `write` are preferred, whose errors name the final path.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_name(path)
        try:
            self.file: BinaryIO = self._temporary.open("xb+")
        except OSError as error:
            raise self.failure(error) from error

    @property
    def closed(self) -> bool:
        """Whether the file has been committed or aborted."""
        return self.file.closed

    def failure(self, error: OSError) -> OutputError:
        """Return the error for the user that an error of the file system means."""
        return OutputError(f"{self._path}: can't be written: {error.strerror or error}")

    def check_open(self) -> None:
        """Raise `OutputError` if the file has been committed or aborted."""
        if self.closed:
            raise OutputError(f"{self._path}: is closed")

    @contextlib.contextmanager
    def aborting(self) -> Iterator[BinaryIO]:
        """Yield the file; where writing to it fails, abort and raise `OutputError`.

        Raises
        ------
        OutputError
            If the disk is full or gone, or the file is closed already.
        """
        self.check_open()
        try:
            yield self.file
        except OSError as error:
            self.abort()
            raise self.failure(error) from error

    def write(self, content: bytes) -> None:
        """Append bytes.

        Raises
        ------
        OutputError
            If the disk is full or gone; the file is then aborted.
        """
        with self.aborting() as file:
            file.write(content)

    def commit(self) -> None:
        """Flush to disk, then give the file its final name and make that durable.

        Raises
        ------
        OutputError
            If the disk is full or the folder gone; the final name then stands for what it did before.
        """
        with self.aborting() as file:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary.replace(self._path)
            sync_folder(self._path.parent)

    def abort(self) -> None:
        """Remove what was written; nothing to do after `commit` or a second time."""
        with contextlib.suppress(OSError):  # what a full disk could not take need not be flushed
            self.file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
