"""Run slides on worker processes of this machine, one per device."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import (
    Failed,
    FromWorker,
    Notice,
    Ready,
    RunContext,
    SlideEvent,
    SlideProgress,
    SlideStarted,
    Stop,
    WorkerFailed,
    WorkerLost,
    WorkerRejected,
)
from nuclix.engine.batch.layout import LOG_NAME
from nuclix.engine.batch.worker_process import EXIT_TIMEOUT, WorkerProcess, exit_reason, start_worker
from nuclix.engine.errors import UsageError

# A worker that has not loaded its model by then (from a share, on a machine that is swapping) never will.
_START_TIMEOUT = 300.0
_MAX_STARTS = 3
# The run looks at its workers several times a second. A longer gap, in seconds, means that it was suspended (Ctrl-Z, a
# batch system), and its workers with it: that is not counted as their silence.
SUSPENDED = 5.0


@dataclass(slots=True)
class _Worker:
    """A worker process and the slide that it is on; `failures` counts those before it that died while they started."""

    device: str
    process: BaseProcess
    connection: Connection
    heard: float
    replaces: bool
    failures: int
    job: SlideJob | None = None
    ready: bool = False
    end: WorkerFailed | None = None


class ProcessExecutor:
    """Worker processes of this machine, one per device; an `Executor`.

    Parameters
    ----------
    context : RunContext
        The run.
    devices : sequence of str
        One worker is started for each.
    first : WorkerProcess, optional
        A process that has been started already, for the first device.
    """

    def __init__(self, context: RunContext, devices: Sequence[str], first: WorkerProcess | None = None) -> None:
        self._started = [] if first is None else [first]
        threads = max(1, context.config.threads // len(devices))
        self._context = replace(context, config=replace(context.config, threads=threads))
        self._on_cpu = sum(not device.startswith(("cuda", "mps")) for device in devices)
        self._workers = [self._start(device) for device in devices]
        self._stopping = False
        self._looked = time.monotonic()
        self._events: list[tuple[SlideJob, SlideEvent] | Notice] = []

    def _start(self, device: str, *, replaces: bool = False, failures: int = 0) -> _Worker:
        context = replace(self._context, config=replace(self._context.config, device=device))
        started = self._started.pop() if self._started else start_worker(context.config)
        started.begin(context, max(1, self._on_cpu))
        return _Worker(device, started.process, started.connection, time.monotonic(), replaces, failures)

    def wants(self) -> bool:
        """Return whether a worker is idle."""
        return any(worker.ready and worker.job is None for worker in self._workers)

    def is_alive(self) -> bool:
        """Return whether any worker is left."""
        return bool(self._workers)

    def submit(self, job: SlideJob) -> None:
        """Give a slide to an idle worker."""
        worker = next(worker for worker in self._workers if worker.ready and worker.job is None)
        worker.job = job
        worker.heard = time.monotonic()
        _send(worker, job)
        self._events.append((job, SlideStarted(worker.device)))

    def poll(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        """Yield the workers' messages, and which of them have died or stalled.

        Raises
        ------
        UsageError
            If a worker can't start at all.
        """
        by_connection = {worker.connection: worker for worker in self._workers}
        for ready in wait(list(by_connection), 0 if self._events else seconds):
            worker = by_connection[ready]  # type: ignore[index]
            worker.heard = time.monotonic()
            try:
                message: FromWorker = worker.connection.recv()
            except (EOFError, OSError):
                self._reap(worker)
            else:
                self._take(worker, message)
        self._fail_stalled()
        events, self._events = self._events, []
        yield from events

    def _take(self, worker: _Worker, message: FromWorker) -> None:
        if isinstance(message, Ready):
            worker.ready = True
            if message.runs_on:
                logging.getLogger("nuclix").info("network on %s", message.runs_on)
        elif isinstance(message, WorkerRejected):
            self._drop_device(worker, message.message, others_may_start=message.device)
        elif isinstance(message, WorkerFailed):
            worker.end = message
        elif worker.job is None:
            raise RuntimeError(f"a worker without a slide sent {message}")
        else:
            self._events.append((worker.job, message))
            if not isinstance(message, SlideProgress):
                worker.job = None

    def _drop_device(self, worker: _Worker, message: str, *, others_may_start: bool = True) -> None:
        """Go on without a device; it is a usage error if it is the last one and no worker has ever started."""
        self._terminate(worker)
        if self._stopping:
            return
        was_ready = worker.replaces
        if not was_ready and not (others_may_start and self._workers):
            raise UsageError(message)
        self._events.append(Notice(f"{worker.device}: going on without this device: {message}"))

    def _reap(self, worker: _Worker) -> None:
        """Replace a worker that has died."""
        worker.process.join(EXIT_TIMEOUT)  # its pipe closes a little before there is an exit code
        reason = worker.end.reason if worker.end else exit_reason(worker.process.exitcode)
        if not worker.ready:
            self._handle_failed_start(worker, reason)
            return
        self._terminate(worker)
        if worker.job is not None:
            self._events.append((worker.job, WorkerLost(reason, worker.end.traceback if worker.end else "")))
        if not self._stopping:
            self._workers.append(self._start(worker.device, replaces=True))

    def _handle_failed_start(self, worker: _Worker, reason: str) -> None:
        """Start once more a worker that was killed while it started; one that ends by itself would do so again."""
        killed = (worker.process.exitcode or 0) < 0
        if not killed or worker.failures + 1 >= _MAX_STARTS:
            self._drop_device(
                worker, f"the worker for {worker.device} died while it started ({reason}; see {LOG_NAME})"
            )
            return
        self._terminate(worker)
        if not self._stopping:
            self._workers.append(self._start(worker.device, replaces=worker.replaces, failures=worker.failures + 1))

    def _fail_stalled(self) -> None:
        """End workers that have been silent for too long; their slides would most likely stall again."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        if gap > SUSPENDED:
            for worker in self._workers:
                worker.heard = min(now, worker.heard + gap)
        for worker in list(self._workers):
            silent = now - worker.heard
            if not worker.ready and silent > _START_TIMEOUT:
                self._drop_device(worker, f"the worker for {worker.device} has not started within {silent:.0f} s")
            elif worker.job is not None and silent > self._context.config.stall_timeout:
                self._terminate(worker)
                said = f"{worker.job.path}: no progress for {silent:.0f} s; its worker was ended"
                self._events.append((worker.job, Failed(said)))
                if not self._stopping:
                    self._workers.append(self._start(worker.device, replaces=True))

    def _terminate(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join(EXIT_TIMEOUT)
        worker.connection.close()

    def stop(self) -> None:
        """Ask the workers to leave their slides; those without one have nothing more to do."""
        self._stopping = True
        for worker in self._workers:
            if worker.job is not None:
                _send(worker, Stop())

    def close(self) -> None:
        """Kill the workers: what is committed stays."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(EXIT_TIMEOUT)
            worker.connection.close()
        self._workers.clear()


def _send(worker: _Worker, message: SlideJob | Stop) -> None:
    """Send to a worker; one that has just died is found dead when it is next listened to."""
    with suppress(OSError):
        worker.connection.send(message)
