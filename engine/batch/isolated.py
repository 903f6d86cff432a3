"""Look into slides; those whose reader's library a damaged file may crash or keep busy, in processes of their own."""

from __future__ import annotations

import multiprocessing
import queue
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from nuclix.engine.batch.worker_process import EXIT_TIMEOUT, exit_reason, hidden_main
from nuclix.engine.contracts import SlideInfo, SlideReader
from nuclix.engine.errors import NuclixError, SlideError
from nuclix.engine.operating_system import ignore_stop_signals, stop_signals_wait
from nuclix.engine.slide.damage import damage_of
from nuclix.engine.slide.open import with_reader

# Seconds in which a slide opens, also from a share that is slow; most do in milliseconds.
OPENING_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What is known of a slide after it was opened: its info, the reader's class, the tiles that it lacks."""

    info: SlideInfo
    reader: str
    missing_tiles: int


class SlideInspector:
    """Opens slides, reads what they state and closes them; safe from several threads.

    A reader's class with the attribute ``isolated = True`` opens them in a process that is started for the first such
    slide, used for the next ones, and replaced if a slide ends or hangs it.

    Parameters
    ----------
    limit : float
        Seconds that such a reader may take for a slide.
    """

    def __init__(self, limit: float = OPENING_LIMIT) -> None:
        self._limit = limit
        self._idle: queue.SimpleQueue[_Opener] = queue.SimpleQueue()

    def inspect(self, path: Path, reader: str | None = None) -> SlideFacts:
        """Return what a slide states.

        Parameters
        ----------
        path : Path
            The file.
        reader : str or None
            Name of the reader to use; None to choose by content.

        Raises
        ------
        SlideError
            If the slide can't be opened, or a library ends its process or takes longer than the limit.
        PluginError
            If there is no reader of that name.
        """
        return with_reader(path, reader, self._opened)

    def _opened(self, kind: type[SlideReader], path: Path) -> SlideFacts:
        if not getattr(kind, "isolated", False):
            return _facts(kind, path)
        try:
            opener = self._idle.get_nowait()
        except queue.Empty:
            opener = _Opener()
        try:
            found = opener.ask(kind, path, self._limit)
        except BaseException:
            opener.close()
            raise
        self._idle.put(opener)
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the processes."""
        while not self._idle.empty():
            self._idle.get().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Opener:
    """A process that opens slides."""

    def __init__(self) -> None:
        starter = multiprocessing.get_context("spawn")  # the libraries' threads do not survive a fork
        self._connection, theirs = starter.Pipe()
        self._process = starter.Process(target=_serve, args=(theirs,), daemon=True)
        with stop_signals_wait(), hidden_main():
            self._process.start()
        theirs.close()

    def ask(self, kind: type[SlideReader], path: Path, limit: float) -> SlideFacts | Exception:
        """Return a slide's facts, or the reader's error.

        Raises
        ------
        SlideError
            If there is no answer; the process is of no more use then.
        """
        advice = "the file is damaged, or its disk does not answer: copy or export it again"
        try:
            self._connection.recv()  # has started; what that takes is no fault of the slide
            self._connection.send((kind, path))
            if not self._connection.poll(limit):
                raise SlideError(f"{path}: {kind.__name__} has not opened it within {limit:g} s; {advice}")
            answer: SlideFacts | Exception = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(EXIT_TIMEOUT)
            reason = exit_reason(self._process.exitcode)
            raise SlideError(f"{path}: {kind.__name__} crashed when it opened it ({reason}); {advice}") from error
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(EXIT_TIMEOUT)
        self._connection.close()


def _serve(connection: Connection) -> None:
    """Answer for one slide after the other, until the other side is gone."""
    ignore_stop_signals()
    while True:
        try:
            connection.send(None)
            kind, path = connection.recv()
            try:
                answer: SlideFacts | Exception = _facts(kind, path)
            except NuclixError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 (errors of a library of another language can't be sent)
                answer = SlideError(f"{path}: {kind.__name__} failed ({type(error).__name__}: {error})")
            connection.send(answer)
        except (EOFError, OSError):
            return


def _facts(kind: type[SlideReader], path: Path) -> SlideFacts:
    slide = kind.open(path)
    try:
        return SlideFacts(slide.info, kind.__name__, damage_of(slide).missing)
    finally:
        slide.close()
