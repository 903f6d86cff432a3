"""Ctrl-C and SIGTERM: the first asks a run to stop after the current row of blocks, the second ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from nuclix.engine.batch.run_state import StopFlag

T = TypeVar("T")

# Seconds.
_GLANCE = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalHandler:
    """Handles signals during a run.

    Parameters
    ----------
    flag : StopFlag
        Is set by the first signal.

    Attributes
    ----------
    exit_code : int
        What the command should return: 0 without a signal, 128 and its number after one, as shells have it.
    """

    def __init__(self, flag: StopFlag) -> None:
        self._flag = flag
        self.exit_code = 0

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread of its own; return what it returns, raise what it raises.

        Python handles signals in the main thread and only between two instructions: it would not during a write to a
        share that does not answer.

        Parameters
        ----------
        work : callable
            Checks the flag regularly.
        """
        outcome: Future[T] = Future()

        def call() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 (handed on to the main thread)
                outcome.set_exception(error)

        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            Thread(target=call, name="nuclix-run", daemon=True).start()
            # Repeatedly: a signal that comes just before the wait starts is only handled when it ends.
            while not wait([outcome], _GLANCE).done:
                pass
            return outcome.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.exit_code = 128 + number
        if self._flag.reason:
            self._end()
        self._flag.reason = f"{signal.Signals(number).name} received"
        with suppress(OSError, RuntimeError):  # a terminal that is gone
            sys.stderr.write(
                "nuclix: stopping after the current row of blocks; press Ctrl-C again to stop immediately\n"
            )

    def _end(self) -> None:
        """End at once: what is committed stays, and nothing is waited for."""
        for child in multiprocessing.active_children():
            child.kill()
        with suppress(OSError, RuntimeError):  # RuntimeError: during another such write
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the cursor, which a progress bar hides
            sys.stderr.write("nuclix: stopped immediately; the same command resumes from the last committed row\n")
            sys.stderr.flush()
        os._exit(self.exit_code)
