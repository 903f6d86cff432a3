"""A worker process: one device, one slide at a time, spoken to through a pipe.

A crash here (a fault in a codec or a driver, the kernel's memory killer) costs the current row of blocks, not the run.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import (
    Done,
    Failed,
    FromWorker,
    OutputUnavailable,
    Ready,
    RunContext,
    SlideProgress,
    Stop,
    Stopped,
    WorkerFailed,
    WorkerRejected,
)
from nuclix.engine.batch.layout import LOG_NAME, slide_paths
from nuclix.engine.errors import DeviceError, DeviceMemoryError, Interrupted, ModelError, NuclixError, OutputError
from nuclix.engine.files import is_transient
from nuclix.engine.inference.device import thread_share
from nuclix.engine.inference.patch_predictor import runs_on
from nuclix.engine.segmentation.hooks import Progress, RunHooks
from nuclix.engine.segmentation.slide import SegmentationContext, make_context, segment_slide

# A progress message at most this often, in seconds.
_PROGRESS_INTERVAL = 0.2
# Exit codes of a worker whose parent has died, and of one that has said that it is broken.
_ORPHAN, _FAILED = 3, 4
# Errors of the file system that are about one path; after all others no slide's result can be written.
_OF_ONE_PATH = frozenset(
    (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG)
)


@dataclass(slots=True)
class _Inbox:
    """What the parent said: a thread listens while the main thread computes."""

    connection: Connection
    stop: threading.Event = field(default_factory=threading.Event)
    jobs: list[SlideJob] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def listen(self) -> None:
        """Sort messages until the pipe closes; a parent that has gone takes the worker with it."""
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

    def next_job(self) -> SlideJob:
        """Wait for a slide."""
        with self.arrived:
            self.arrived.wait_for(lambda: self.jobs)
            return self.jobs.pop(0)


class RowClock:
    """Tells after each committed row whether there is time for another one.

    Parameters
    ----------
    deadline : float
        In seconds since 1970.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._last = time.time()
        self._longest = 0.0

    def is_up(self) -> bool:
        """Record that a row is done; return whether one like the longest so far would end after the deadline."""
        now = time.time()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        return now + self._longest > self._deadline


def run_worker(connection: Connection, context: RunContext, cpu_workers: int) -> None:
    """Run slides until the parent closes the pipe or ends the process.

    Parameters
    ----------
    connection : Connection
        Receives `SlideJob` and `Stop`, sends messages.
    context : RunContext
        The run, with this worker's device.
    cpu_workers : int
        Workers that compute on this machine's CPU at the same time.
    """
    inbox = _Inbox(connection)
    threading.Thread(target=inbox.listen, daemon=True).start()
    _redirect_output(context.config.output_folder / LOG_NAME)
    try:
        shared = make_context(context.config, context.started, thread_share(cpu_workers))
        check_model(shared, context.model)
    except NuclixError as error:
        connection.send(WorkerRejected(str(error), isinstance(error, DeviceError | DeviceMemoryError)))
        return
    gc.freeze()  # the libraries' objects stay: the collector need not look at them again and again
    connection.send(Ready(runs_on(shared.predictor)))
    while True:
        job = inbox.next_job()
        message = process_slide(job, shared, _hooks(connection, inbox.stop, RowClock(context.deadline)))
        connection.send(message)
        if isinstance(message, WorkerFailed):
            os._exit(_FAILED)


def check_model(shared: SegmentationContext, expected: str) -> None:
    """Raise `ModelError` if the model that was loaded is not the one that the run started with."""
    if expected and shared.model.sha256 != expected:
        raise ModelError(
            f"model {shared.config.model}: its file was replaced after the run started; "
            "run the same command again to use the new one"
        )


def _redirect_output(path: Path) -> None:
    """Let what libraries print, and the last words of a crash, go into the log and not through the display."""
    with suppress(OSError):
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
    faulthandler.enable()


def _hooks(connection: Connection, stop: threading.Event, clock: RowClock) -> RunHooks:
    last = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_INTERVAL or progress.tiles == progress.tiles_total:
            last = now
            connection.send(SlideProgress(progress))

    return RunHooks(on_progress, lambda: clock.is_up() or stop.is_set())


def process_slide(job: SlideJob, shared: SegmentationContext, hooks: RunHooks) -> FromWorker:  # noqa: PLR0911 (one answer for each cause)
    """Segment a slide; turn whatever is raised into a message for the run.

    Parameters
    ----------
    job : SlideJob
        The slide.
    shared : SegmentationContext
        Model and plugins.
    hooks : RunHooks
        Receive progress, and may stop the slide.

    Returns
    -------
    Done, Failed, OutputUnavailable, Stopped or WorkerFailed
    """
    try:
        return Done(segment_slide(slide_paths(shared.config.output_folder, job), shared, hooks, job.scale))
    except Interrupted:
        return Stopped()
    except OutputError as error:
        cause = error.__cause__
        everywhere = isinstance(cause, OSError) and cause.errno not in _OF_ONE_PATH
        if everywhere:
            return OutputUnavailable(str(error), is_transient(error))
        return Failed(str(error), transient=is_transient(error))
    except DeviceError as error:
        return WorkerFailed(str(error), traceback.format_exc())
    except NuclixError as error:
        return Failed(str(error), transient=is_transient(error))
    except MemoryError as error:
        return WorkerFailed(f"out of memory: {error}" if str(error) else "out of memory", traceback.format_exc())
    except Exception as error:  # noqa: BLE001 (a plugin may raise anything; the other slides go on)
        message = f"{job.path}: unexpected {type(error).__name__}: {error} (traceback in {LOG_NAME})"
        return Failed(message, traceback.format_exc(), is_transient(error))
