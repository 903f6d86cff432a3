"""Who does the work: worker processes of this machine, or whatever else takes slides and says what becomes of them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from nuclix.engine.errors import UsageError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.messages import (
    Advanced,
    Begun,
    Broken,
    Failed,
    FromWorker,
    Lost,
    Notice,
    Ready,
    Refused,
    SlideEvent,
    Stop,
)
from nuclix.engine.settings import RunSettings
from nuclix.engine.worker import WorkerTerms, work

# A process that has been killed is waited for this long, in seconds: one that hangs in a system call (a share that
# does not answer) can't be killed and is left behind.
_PARTING = 5.0
# A worker that has not loaded its model by then (from a share, on a machine that is swapping) never will.
_START_PATIENCE = 300.0
_STARTS_ALLOWED = 3


class Crew(Protocol):
    """Takes slides, and says what becomes of them."""

    def wants(self) -> bool:
        """Say whether a slide handed out now would be begun, or may wait where it is better kept than here."""
        ...

    def lives(self) -> bool:
        """Say whether there is, or may yet be, anyone who works."""
        ...

    def hand_out(self, job: SlideJob) -> None:
        """Give a slide to whoever wants one."""
        ...

    def listen(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        """Yield what has happened; wait for it at most so long."""
        ...

    def stop(self) -> None:
        """Ask for all slides to be left after their next committed row; each will say so."""
        ...

    def close(self) -> None:
        """End at once, whatever is in work."""
        ...


@dataclass(frozen=True, slots=True)
class CrewTerms:
    """What every crew needs to know.

    Attributes
    ----------
    settings : RunSettings
        What is done to each slide.
    started : float
        When the run began, in seconds since 1970.
    deadline : float
        When it must have ended; infinity where it need not.
    patience : float
        Seconds after which a worker that has not come any further is given up.
    """

    settings: RunSettings
    started: float
    deadline: float
    patience: float


@dataclass(slots=True)
class _Worker:
    """A worker process and the slide that it is on; `failures` counts those before it that died while they started."""

    device: str
    process: SpawnProcess
    connection: Connection
    heard: float
    replaces: bool
    failures: int
    job: SlideJob | None = None
    ready: bool = False
    end: Broken | None = None


class LocalCrew:
    """Worker processes of this machine, one a device.

    Parameters
    ----------
    terms : CrewTerms
        What to do.
    devices : sequence of str
        A worker for each.
    """

    def __init__(self, terms: CrewTerms, devices: Sequence[str]) -> None:
        self._terms = terms
        self._on_cpu = sum(not device.startswith("cuda") for device in devices)
        threads = max(1, terms.settings.workers // len(devices))
        self._settings = replace(terms.settings, workers=threads)
        self._workers = [self._start(device) for device in devices]
        self._stopping = False
        self._events: list[tuple[SlideJob, SlideEvent] | Notice] = []

    def _start(self, device: str, *, replaces: bool = False, failures: int = 0) -> _Worker:
        context = multiprocessing.get_context("spawn")
        # A helper of multiprocessing's, which is started with the first process and lets the signals through again.
        resource_tracker.ensure_running()
        ours, theirs = context.Pipe()
        settings = replace(self._settings, device=device)
        terms = WorkerTerms(settings, self._terms.started, self._terms.deadline, max(1, self._on_cpu))
        process = context.Process(target=work, args=(theirs, terms), daemon=True)
        # Until the child has its own way with these signals they wait; an impatient Ctrl-C finds no half-made process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(device, process, ours, time.monotonic(), replaces, failures)

    def wants(self) -> bool:
        """Say whether a worker is ready and without a slide."""
        return any(worker.ready and worker.job is None for worker in self._workers)

    def lives(self) -> bool:
        """Say whether any worker is left."""
        return bool(self._workers)

    def hand_out(self, job: SlideJob) -> None:
        """Give a slide to a worker that is ready."""
        worker = next(worker for worker in self._workers if worker.ready and worker.job is None)
        worker.job = job
        worker.heard = time.monotonic()
        _send(worker, job)
        self._events.append((job, Begun(worker.device)))

    def listen(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        """Yield what the workers say, and who of them has died or hangs.

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
                self._bury(worker)
            else:
                self._take(worker, message)
        self._look_for_the_hanging()
        events, self._events = self._events, []
        yield from events

    def _take(self, worker: _Worker, message: FromWorker) -> None:
        if isinstance(message, Ready):
            worker.ready = True
        elif isinstance(message, Refused):
            self._dismiss(worker, message.message)
        elif isinstance(message, Broken):
            worker.end = message
        elif worker.job is None:
            raise RuntimeError(f"a worker without a slide says {message}")
        else:
            self._events.append((worker.job, message))
            if not isinstance(message, Advanced):
                worker.job = None

    def _dismiss(self, worker: _Worker, message: str) -> None:
        """Go on without a device that worked before; one that never did was a wrong wish."""
        self._part(worker)
        if self._stopping:
            return
        if not worker.replaces:
            raise UsageError(message)
        self._events.append(Notice(f"{worker.device}: no worker can be started here any more: {message}"))

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that has died."""
        worker.process.join(_PARTING)  # its pipe closes a little before there is an exit code
        reason = worker.end.reason if worker.end else _how_it_ended(worker.process.exitcode)
        if not worker.ready:
            self._bury_unborn(worker, reason)
            return
        self._part(worker)
        if worker.job is not None:
            self._events.append((worker.job, Lost(reason, worker.end.traceback if worker.end else "")))
        if not self._stopping:
            self._workers.append(self._start(worker.device, replaces=True))

    def _bury_unborn(self, worker: _Worker, reason: str) -> None:
        """Start once more a worker that was killed while it started; one that ends by itself would do so again."""
        killed = (worker.process.exitcode or 0) < 0
        if not killed or worker.failures + 1 >= _STARTS_ALLOWED:
            self._dismiss(worker, f"the worker for {worker.device} died while it started ({reason}; see run.log)")
            return
        self._part(worker)
        if not self._stopping:
            self._workers.append(self._start(worker.device, replaces=worker.replaces, failures=worker.failures + 1))

    def _look_for_the_hanging(self) -> None:
        """End workers that have been silent for too long; their slides would most likely hang again."""
        now = time.monotonic()
        for worker in list(self._workers):
            silent = now - worker.heard
            if not worker.ready and silent > _START_PATIENCE:
                self._dismiss(worker, f"the worker for {worker.device} has not started within {silent:.0f} s")
            elif worker.job is not None and silent > self._terms.patience:
                self._part(worker)
                said = f"{worker.job.path}: no progress for {silent:.0f} s; its worker was ended"
                self._events.append((worker.job, Failed(said)))
                if not self._stopping:
                    self._workers.append(self._start(worker.device, replaces=True))

    def _part(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join(_PARTING)
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
            worker.process.join(_PARTING)
            worker.connection.close()
        self._workers.clear()


def _send(worker: _Worker, message: SlideJob | Stop) -> None:
    """Send to a worker; one that has just died is found dead when it is next listened to."""
    with suppress(OSError):
        worker.connection.send(message)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code < 0:
        hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}{hint}"
    return f"exit code {code}"
