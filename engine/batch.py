"""A batch of slides over worker processes: skips what is done, goes on with what was begun, survives what fails.

Only this process writes the ledger. Workers come and go; a slide that kills its worker is tried again from its last
committed row, and given up after a few times.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from nuclix.engine.errors import ModelError, NuclixError, OutputError, UsageError
from nuclix.engine.inputs import SlideJob, find_slides
from nuclix.engine.ledger import DONE, Ledger
from nuclix.engine.listener import RunListener, RunPlan
from nuclix.engine.lock import FolderLock
from nuclix.engine.model import find_model
from nuclix.engine.record import SlideRecord
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import fingerprint
from nuclix.engine.slide_run import checksum, spool_folder
from nuclix.engine.worker import Advanced, Done, Failed, Message, Ready, Refused, Stop, Stopped, work

log = logging.getLogger("nuclix")

# A slide that has killed its worker this often without getting a row further is given up.
CRASHES_ALLOWED = 3
# Signals and the clock are looked at this often, in seconds.
_HEARTBEAT = 0.25
# How long a worker that was told to end may take.
_PARTING = 10.0


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch is run, beside what is done to each slide.

    Attributes
    ----------
    devices : tuple of str
        A worker process each.
    retry : int
        How often a failed slide is tried again in this run.
    fail_fast : bool
        End the run at the first slide that fails.
    time_limit : float or None
        Seconds after which the run stops cleanly.
    """

    devices: tuple[str, ...] = ("auto",)
    retry: int = 0
    fail_fast: bool = False
    time_limit: float | None = None


@dataclass(slots=True)
class RunSummary:
    """What came of a run.

    Attributes
    ----------
    done : dict of str to SlideRecord
        Slides finished in this run.
    skipped : list of str
        Slides that were done before.
    failed : dict of str to str
        Slides without result, with the reason.
    stopped : str
        Why the run ended before all slides were tried; empty if it did not.
    """

    done: dict[str, SlideRecord] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


@dataclass(slots=True)
class StopFlag:
    """What a signal handler sets: why the run should stop after the current rows."""

    reason: str = ""


@dataclass(slots=True)
class _Worker:
    """A worker process and the slide that it is on."""

    device: str
    process: SpawnProcess
    connection: Connection
    job: SlideJob | None = None
    ready: bool = False


def run_batch(
    inputs: Sequence[str], settings: RunSettings, options: BatchOptions, listener: RunListener, stop: StopFlag
) -> RunSummary:
    """Find the nuclei of every slide.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns.
    settings : RunSettings
        What to do.
    options : BatchOptions
        How.
    listener : RunListener
        Is told how it goes.
    stop : StopFlag
        Is looked at several times a second.

    Returns
    -------
    RunSummary

    Raises
    ------
    UsageError
        If nothing can be run: no input, an unknown model or device, an output folder that can't be written or that
        another run holds.
    """
    started = time.time()
    jobs = find_slides(inputs, settings.out)
    try:
        _prepare_folder(settings.out)
        model_hash = checksum(find_model(settings.model))
    except (ModelError, OutputError) as error:
        raise UsageError(str(error)) from error
    with FolderLock(settings.out):
        ledger = Ledger(settings.out)
        try:
            batch = _Batch(settings, options, listener, ledger, stop, started)
            return batch.run(jobs, model_hash)
        finally:
            ledger.close()


def _prepare_folder(out: Path) -> None:
    """Make the output folder and find out at once, not after hours, whether it can be written."""
    probe = out / ".nuclix-probe"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: the output folder can't be written: {error.strerror}") from error


def request_key(mark: str, model_hash: str, settings: RunSettings) -> str:
    """Return what a slide's result depends on; blocks and workers are not in it, for they do not show.

    Parameters
    ----------
    mark : str
        The slide's fingerprint.
    model_hash : str
        The model file's SHA-256.
    settings : RunSettings
        What was asked.

    Returns
    -------
    str
        JSON.
    """
    return json.dumps(
        {
            "slide": mark,
            "model": model_hash,
            "nuclix": version("nuclix"),
            "mpp": settings.mpp,
            "device": settings.device.partition(":")[0],
            "precision": settings.precision,
            "tissue": settings.tissue,
            "writer": settings.writer,
        }
    )


class _Batch:
    """The state of a run."""

    def __init__(
        self,
        settings: RunSettings,
        options: BatchOptions,
        listener: RunListener,
        ledger: Ledger,
        stop: StopFlag,
        started: float,
    ) -> None:
        self._settings = settings
        self._options = options
        self._listener = listener
        self._ledger = ledger
        self._stop = stop
        self._started = started
        self._summary = RunSummary()
        self._queue: deque[SlideJob] = deque()
        self._keys: dict[str, tuple[str, str]] = {}
        self._crashes: dict[str, int] = {}
        self._tries: dict[str, int] = {}
        self._workers: list[_Worker] = []
        self._number = 0
        self._stopping = False

    def run(self, jobs: Sequence[SlideJob], model_hash: str) -> RunSummary:
        """Run what is not done yet."""
        # The workers' imports take longer than all that is looked up here.
        self._workers = [self._start(device) for device in self._options.devices[: len(jobs)]]
        try:
            self._plan(jobs, model_hash)
            while self._workers and (self._queue or any(worker.job for worker in self._workers)):
                self._look_at_the_clock()
                self._listen()
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
        return self._summary

    def _plan(self, jobs: Sequence[SlideJob], model_hash: str) -> None:
        """Sort out what is done already; queue the rest, biggest first."""
        todo: list[tuple[int, SlideJob]] = []
        for job in jobs:
            name = str(job.name)
            try:
                size = job.path.stat().st_size
                mark = fingerprint(job.path)
            except (OSError, NuclixError) as error:
                self._ledger.enlist(name, job.path, 0)
                self._fail(job, Failed(str(error)))
                continue
            self._ledger.enlist(name, job.path, size)
            key = request_key(mark, model_hash, self._settings)
            self._keys[name] = (mark, key)
            if self._is_done(job, key):
                self._summary.skipped.append(name)
            else:
                todo.append((size, job))
        self._queue.extend(job for _, job in sorted(todo, key=lambda item: -item[0]))
        sizes = {str(job.name): size for size, job in todo}
        self._listener.run_started(RunPlan(len(jobs), len(self._summary.skipped), sizes))

    def _is_done(self, job: SlideJob, key: str) -> bool:
        """Say whether the slide has a result that this very run would write again."""
        row = self._ledger.row(str(job.name))
        if row is None or row.state != DONE or row.output is None:
            return False
        output = self._settings.out / row.output
        if row.key != key:
            changed = ", ".join(_differences(json.loads(row.key or "{}"), json.loads(key)))
            self._listener.notice(f"{job.path.name}: has a result of another {changed}; it will be replaced")
        elif not output.is_file() or checksum(output) != row.checksum:
            self._listener.notice(
                f"{job.path.name}: its result {output} is missing or was changed; it will be made again"
            )
        else:
            return True
        self._ledger.reset(str(job.name))
        return False

    def _start(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        settings = replace(self._settings, device=device)
        process = context.Process(target=work, args=(theirs, settings, self._started), daemon=True)
        process.start()
        theirs.close()
        return _Worker(device, process, ours)

    def _look_at_the_clock(self) -> None:
        """Pass on a signal, or the end of the time limit, once."""
        limit = self._options.time_limit
        if not self._stop.reason and limit is not None and time.time() - self._started >= limit:
            self._stop.reason = f"the time limit of {limit:.0f} s is reached"
        if self._stop.reason and not self._stopping:
            self._stopping = True
            self._summary.stopped = self._stop.reason
            self._queue.clear()
            for worker in list(self._workers):
                if worker.job is None:
                    self._retire(worker)
                else:
                    _send(worker, Stop())

    def _listen(self) -> None:
        """Hand out slides, then take what the workers have to say."""
        for worker in list(self._workers):
            if worker.ready and worker.job is None:
                self._hand_out(worker)
        by_connection = {worker.connection: worker for worker in self._workers}
        for ready in wait(list(by_connection), _HEARTBEAT):
            worker = by_connection[ready]  # type: ignore[index]
            try:
                message: Message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
            else:
                self._take(worker, message)

    def _hand_out(self, worker: _Worker) -> None:
        if not self._queue:
            self._retire(worker)
            return
        worker.job = self._queue.popleft()
        self._number += 1
        self._ledger.begin(str(worker.job.name))
        self._listener.slide_started(worker.job, self._number)
        log.info("%s begun on %s", worker.job.path, worker.device)
        _send(worker, worker.job)

    def _retire(self, worker: _Worker) -> None:
        _send(worker, None)
        self._workers.remove(worker)
        worker.process.join(_PARTING)
        if worker.process.is_alive():
            worker.process.kill()
        worker.connection.close()

    def _take(self, worker: _Worker, message: Message) -> None:
        job = worker.job
        if isinstance(message, Ready):
            worker.ready = True
        elif isinstance(message, Refused):
            raise UsageError(message.message)
        elif job is None:
            raise RuntimeError(f"a worker without a slide says {message}")
        elif isinstance(message, Advanced):
            self._listener.slide_progress(job, message.progress)
        else:
            worker.job = None
            if isinstance(message, Done):
                self._finish(job, message)
            elif isinstance(message, Failed):
                self._fail(job, message)
            elif isinstance(message, Stopped):
                self._ledger.reset(str(job.name))
                self._listener.slide_stopped(job)

    def _finish(self, job: SlideJob, message: Done) -> None:
        """Enter the result in the ledger; only then may the spool go."""
        name, outcome = str(job.name), message.outcome
        mark, key = self._keys[name]
        entry = {"fingerprint": mark, "key": key, "output": outcome.output, "checksum": outcome.checksum}
        self._ledger.finish(name, {**entry, "record": asdict(outcome.record)})
        shutil.rmtree(spool_folder(self._settings.out, job), ignore_errors=True)
        self._summary.done[name] = outcome.record
        self._summary.failed.pop(name, None)
        log.info("%s done: %s", job.path, json.dumps(dict(outcome.record.counts)))
        self._listener.slide_done(job, outcome.record)

    def _fail(self, job: SlideJob, message: Failed) -> None:
        name = str(job.name)
        log.error("%s failed: %s\n%s", job.path, message.message, message.traceback)
        self._ledger.fail(name, message.message)
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        if tries <= self._options.retry and name in self._keys and not self._stopping:
            self._listener.notice(f"{job.path.name}: failed ({message.message}); trying again")
            self._queue.append(job)
            return
        self._summary.failed[name] = message.message
        self._listener.slide_failed(job, message.message)
        if self._options.fail_fast and not self._stop.reason:
            self._stop.reason = f"{job.path.name} failed, and --fail-fast was given"

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that has died, and try its slide again unless it dies of it every time."""
        worker.process.join(_PARTING)
        code = worker.process.exitcode
        worker.connection.close()
        self._workers.remove(worker)
        if not worker.ready:
            raise UsageError(f"the worker for {worker.device} died while it started (exit code {code})")
        job = worker.job
        if job is None:
            return
        name = str(job.name)
        crashes = self._crashes[name] = self._crashes.get(name, 0) + 1
        reason = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        log.error("%s: its worker died (%s)", job.path, reason)
        if crashes >= CRASHES_ALLOWED:
            self._fail(job, Failed(f"{job.path}: killed its worker process {crashes} times ({reason}); out of memory?"))
        elif self._stopping:
            self._ledger.reset(name)
            self._listener.slide_stopped(job)
        else:
            self._listener.notice(f"{job.path.name}: its worker died ({reason}); going on from the last committed row")
            self._queue.appendleft(job)
        if not self._stopping:
            self._workers.append(self._start(worker.device))


def _send(worker: _Worker, message: SlideJob | Stop | None) -> None:
    """Send to a worker; one that has just died is found dead when it is next listened to."""
    try:
        worker.connection.send(message)
    except OSError:
        log.warning("the worker for %s is gone", worker.device)


def _differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Return the names of what differs between two keys."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
