"""What every file that is being written has in common: it is complete under its final name, or not there."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.pending_file import PendingFile
from nuclix.engine.segmentation.objects import Objects


class FileSession(ABC):
    """A file of objects being written.

    Parameters
    ----------
    path : Path
        The final name.
    header : SlideHeader
        The slide.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path, header: SlideHeader) -> None:
        self._header = header
        self._pending = PendingFile(path)

    @contextlib.contextmanager
    def _aborting(self) -> Iterator[None]:
        """Abort where writing fails, and raise `OutputError` for an error of the file system."""
        try:
            with self._pending.aborting():
                yield
        except BaseException:
            if self._pending.closed:
                self.abort()
            raise

    def write(self, objects: Objects) -> None:
        """Append objects; calls come in canonical order.

        Raises
        ------
        OutputError
            If the disk is full or gone; the file is then aborted.
        ValueError
            If the objects' columns don't fit each other, a value is not finite, or the measurements have other names
            than before.
        """
        self._pending.check_open()
        self._append(objects)

    @abstractmethod
    def _append(self, objects: Objects) -> None:
        """Write objects."""

    def commit(self) -> None:
        """Finish: flush to disk, then give the file its final name and make that durable.

        Raises
        ------
        OutputError
            If the disk is full or the folder gone; the final name then stands for what it did before.
        """
        with self._aborting():
            self._finish()
        with self._aborting():
            self._pending.commit()
        self._release()

    @abstractmethod
    def _finish(self) -> None:
        """Write what stands at the end of the file."""

    def abort(self) -> None:
        """Remove what was written; nothing to do after `commit` or a second time."""
        self._release()
        self._pending.abort()

    def _release(self) -> None:
        """Close what else is open; may be called again, and must not raise."""
        return
