"""A worker process: one device, one slide at a time, spoken to through a pipe.

A crash here (a fault in a codec or a driver, the kernel's memory killer) costs the row of blocks in work, not the run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from nuclix.engine.errors import Interrupted, NuclixError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.pipeline import Progress, Watch
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide_run import SlideOutcome, Tools, make_tools, run_slide

# A progress message at most this often, in seconds.
_PROGRESS_INTERVAL = 0.2
# Exit code of a worker whose parent has died.
_ORPHAN = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker can't work at all: model, plugin or device."""

    message: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """A slide has come further."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Done:
    """A slide's result has its final name."""

    outcome: SlideOutcome


@dataclass(frozen=True, slots=True)
class Failed:
    """A slide has no result; `traceback` is empty for errors that are the user's to mend."""

    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A slide was left after a committed row, as asked."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the worker to leave its slide after the next committed row."""


Message = Ready | Refused | Advanced | Done | Failed | Stopped


@dataclass(slots=True)
class _Inbox:
    """What the parent said: a thread listens while the main thread computes."""

    connection: Connection
    stop: threading.Event = field(default_factory=threading.Event)
    jobs: list[SlideJob | None] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def listen(self) -> None:
        """Sort messages until the pipe closes; a parent that died takes the worker with it."""
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                os._exit(_ORPHAN)
            if isinstance(message, Stop):
                self.stop.set()
                continue
            with self.arrived:
                self.jobs.append(message)
                self.arrived.notify()
            if message is None:
                return

    def next_job(self) -> SlideJob | None:
        """Wait for a slide; None says that there is no more."""
        with self.arrived:
            self.arrived.wait_for(lambda: self.jobs)
            return self.jobs.pop(0)


def work(connection: Connection, settings: RunSettings, started: float) -> None:
    """Run slides until the parent says that there are no more.

    Parameters
    ----------
    connection : Connection
        Brings `SlideJob`s, `Stop` and a final None; takes `Message`s.
    settings : RunSettings
        What to do.
    started : float
        When the run began, in seconds since 1970.
    """
    # Ctrl-C reaches every process of the terminal; what it means is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox = _Inbox(connection)
    threading.Thread(target=inbox.listen, daemon=True).start()
    try:
        tools = make_tools(settings, started)
    except NuclixError as error:
        connection.send(Refused(str(error)))
        return
    connection.send(Ready())
    while (job := inbox.next_job()) is not None:
        connection.send(_run(job, tools, inbox, connection))


def _run(job: SlideJob, tools: Tools, inbox: _Inbox, connection: Connection) -> Message:
    last = 0.0

    def listen(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_INTERVAL or progress.tiles == progress.tiles_total:
            last = now
            connection.send(Advanced(progress))

    try:
        return Done(run_slide(job, tools, Watch(listen, inbox.stop.is_set)))
    except Interrupted:
        return Stopped()
    except NuclixError as error:
        return Failed(str(error))
    except Exception as error:  # noqa: BLE001 (a plugin may raise anything; the other slides go on)
        message = f"{job.path}: unexpected {type(error).__name__}: {error} (traceback in run.log)"
        return Failed(message, traceback.format_exc())
