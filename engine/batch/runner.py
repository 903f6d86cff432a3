"""Run a batch of slides: skip what is finished, resume what was interrupted, isolate what fails.

Only this process writes the ledger. A slide whose worker dies is retried from its last committed row, and fails after
a few attempts without progress.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuclix.engine.batch import events
from nuclix.engine.batch.copies import drop_copies, keep_copies
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.events import Observer
from nuclix.engine.batch.executor import (
    Done,
    Executor,
    Failed,
    Notice,
    OutputUnavailable,
    RunContext,
    SlideEvent,
    SlideProgress,
    SlideStarted,
    Stopped,
    WorkerLost,
)
from nuclix.engine.batch.layout import LOG_NAME, prepare_folder, remove_temporaries, slide_paths
from nuclix.engine.batch.ledger import Ledger, known_slides
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.batch.outputs import large_slide_notice
from nuclix.engine.batch.processes import ProcessExecutor
from nuclix.engine.batch.resume import CheckHooks, ResultChecker, SlideCheck, check_results, require_consent
from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.slide_table import list_slides
from nuclix.engine.batch.worker_process import WorkerProcess
from nuclix.engine.errors import Interrupted, ModelError, OutputError, PluginError, UsageError
from nuclix.engine.files import BACK_OFF
from nuclix.engine.inference.model_file import find_model, model_hash
from nuclix.engine.run_config import RunConfig
from nuclix.engine.slide.identity import file_state

log = logging.getLogger("nuclix")

# A slide that has killed its worker this often without completing another row fails.
MAX_CRASHES = 3
# Interval at which signals and the clock are checked, in seconds.
_HEARTBEAT = 0.25
_DOUBT = events.notice("comparing the contents of files whose modification times are new or not known")


def run_batch(config: RunConfig, observer: Observer, stop: StopFlag, first: WorkerProcess | None = None) -> RunSummary:
    """Segment the nuclei of every slide.

    Parameters
    ----------
    config : RunConfig
        With slides and output folder.
    observer : callable
        Receives each `RunEvent`.
    stop : StopFlag
        Is checked several times a second.
    first : WorkerProcess, optional
        A process that the caller has started, and closes; it has imported PyTorch meanwhile.

    Returns
    -------
    RunSummary

    Raises
    ------
    UsageError
        If nothing can be run: no input, an unknown model or device, an output folder that can't be written or that
        another run uses.
    OutputError
        If the ledger can't be opened.
    """
    started = time.time()
    config.check_complete()
    out = config.output_folder
    deadline = math.inf if config.time_limit is None else started + config.time_limit
    found = list_slides(config, known_slides(out), download=True)
    jobs = found.jobs
    try:
        prepare_folder(out)
        model = model_hash(find_model(config.model))
    except (ModelError, OutputError) as error:
        raise UsageError(str(error)) from error
    context = RunContext(config, started, deadline, model)
    with FolderLock(out) as lock, closing(Ledger(out)) as ledger:
        rows = {row.name: row for row in ledger.rows()}
        remove_temporaries(out, jobs)
        # Workers start before the slides are checked: their imports take longer.
        executor = _executor(context, len(jobs), first)
        try:
            for line in found.passed_over:
                log.info(line)
                observer(events.passed_over(line))
            hooks = CheckHooks(lambda: bool(stop.reason) or time.time() >= deadline, lambda: observer(_DOUBT))
            try:
                checker = ResultChecker(config, model, rows, hooks)
                slides = require_consent(check_results(jobs, checker), config)
            except PluginError as error:
                raise UsageError(str(error)) from error
            except Interrupted:
                return RunSummary(stopped=stop.reason or _time_limit_reached(config))
            return BatchRunner(context, executor, ledger, lock, observer, stop).run(slides)
        finally:
            executor.close()


def _time_limit_reached(config: RunConfig) -> str:
    return f"the time limit of {config.time_limit or 0:g} s is reached"


def _executor(context: RunContext, slides: int, first: WorkerProcess | None) -> Executor:
    config = context.config
    if config.scheduler is not None:
        from nuclix.engine.batch.dask import DaskExecutor

        return DaskExecutor(context, config.scheduler)
    return ProcessExecutor(context, (config.devices or (config.device,))[:slides], first)


class BatchRunner:
    """The state of a run.

    Parameters
    ----------
    context : RunContext
        The run.
    executor : Executor
        Runs the slides.
    ledger : Ledger
        Keeps the state of each slide.
    lock : FolderLock
        Of the output folder.
    observer : callable
        Receives each `RunEvent`.
    stop : StopFlag
        Is checked several times a second.
    """

    def __init__(
        self,
        context: RunContext,
        executor: Executor,
        ledger: Ledger,
        lock: FolderLock,
        observer: Observer,
        stop: StopFlag,
    ) -> None:
        self._context = context
        self._config = context.config
        self._executor = executor
        self._ledger = ledger
        self._lock = lock
        self._observer = observer
        self._stop_flag = stop
        self._summary = RunSummary()
        self._queue: deque[SlideCheck] = deque()
        self._submitted: dict[str, SlideCheck] = {}
        self._delayed: list[tuple[float, SlideCheck]] = []  # when to queue again, after a transient error
        self._transients: Counter[str] = Counter()
        self._copies: dict[str, tuple[Path, ...]] = {}
        self._numbers: dict[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._rows: dict[str, int] = {}  # committed, as far as is known
        self._crashes: dict[str, tuple[int, int]] = {}  # how often, without getting further than which row
        self._stopping = False

    def run(self, slides: Sequence[SlideCheck]) -> RunSummary:
        """Run what is not done yet, the biggest slides first.

        Raises
        ------
        UsageError
            If no worker can be started.
        """
        try:
            self._enlist(slides)
            self._loop()
            for name, slide in self._submitted.items():  # interrupted without a commit
                self._ledger.reset(name)
                self._observer(events.slide_stopped(slide.job))
        except OutputError as error:  # the ledger's; what it does not know of will be made again
            self._stop(str(error), blocked=True)
        self._remove_checkpoints(slides)
        return self._summary

    def _remove_checkpoints(self, slides: Sequence[SlideCheck]) -> None:
        """Remove the checkpoints of finished slides: a kill at the wrong moment, or a late worker, leaves one."""
        finished = {*self._summary.done, *self._summary.skipped}
        for slide in slides:
            if str(slide.job.name) in finished:
                shutil.rmtree(slide_paths(self._config.output_folder, slide.job).checkpoint, ignore_errors=True)

    def _loop(self) -> None:
        while (self._queue or self._submitted or self._delayed) and not self._is_over():
            self._check_stop()
            self._queue_delayed()
            while self._queue and self._executor.wants():
                self._submit(self._queue.popleft())
            for event in self._executor.poll(_HEARTBEAT):
                if isinstance(event, Notice):
                    self._notice(event.message)
                else:
                    self._handle(*event)
            self._ledger.flush(due_only=True)

    def _queue_delayed(self) -> None:
        """Queue the slides whose pause after a transient error is over."""
        now, delayed = time.monotonic(), self._delayed
        self._queue.extendleft(slide for due, slide in delayed if due <= now)
        self._delayed = [(due, slide) for due, slide in delayed if due > now]

    def _enlist(self, slides: Sequence[SlideCheck]) -> None:
        todo = [slide for slide in slides if not slide.done and not slide.error]
        for slide in slides:
            self._ledger.enlist(str(slide.job.name), slide.job.path, slide.size)
            if slide.done:
                self._confirm(slide)
        self._ledger.flush()
        self._summary.skipped = [str(slide.job.name) for slide in slides if slide.done]
        sizes = {str(slide.job.name): slide.size for slide in todo}
        self._observer(events.run_started(len(slides), len(self._summary.skipped), sizes))
        for slide in slides:
            if slide.notice:
                self._notice(slide.notice)
        self._queue.extend(sorted(todo, key=lambda slide: -slide.size))
        for slide in slides:
            if slide.error:
                self._fail(slide, Failed(slide.error))

    def _confirm(self, slide: SlideCheck) -> None:
        """Update the ledger's row of a finished slide where it says otherwise."""
        if slide.result:
            self._ledger.finish(str(slide.job.name), {**slide.result, **slide.states})
        elif slide.states:
            self._ledger.confirm(str(slide.job.name), slide.states)

    def _is_over(self) -> bool:
        """Return whether waiting is pointless: time is up, or no worker is left."""
        if time.time() >= self._context.deadline:
            self._stop(_time_limit_reached(self._config))
            return True
        if not self._executor.is_alive():
            address = self._config.scheduler
            lost = f"the Dask scheduler at {address} does not answer any more" if address else "no worker is left"
            self._stop(lost, blocked=True)
            return True
        return False

    def _check_stop(self) -> None:
        """Pass on a signal, once; and check that the folder is still this run's."""
        if self._stop_flag.reason:
            self._stop(self._stop_flag.reason)
        elif not self._lock.is_held():
            self._stop(f"{self._config.output_folder}: is gone, or another run has taken it over", blocked=True)

    def _stop(self, reason: str, *, blocked: bool = False) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._summary.stopped, self._summary.blocked = reason, blocked
        self._queue.clear()
        self._delayed.clear()
        self._executor.stop()

    def _notice(self, message: str) -> None:
        log.info(message)
        self._observer(events.notice(message))

    def _submit(self, slide: SlideCheck) -> None:
        name = str(slide.job.name)
        try:
            self._copies[name] = keep_copies(slide.set_aside)
        except OutputError as error:
            self._stop(str(error), blocked=True)
            return
        self._submitted[name] = slide
        self._executor.submit(slide.job)

    def _handle(self, job: SlideJob, event: SlideEvent) -> None:
        name = str(job.name)
        slide = self._submitted.get(name)
        if slide is None:
            log.warning("%s: event after its end: %s", job.path, event)
        elif isinstance(event, SlideStarted):
            self._ledger.begin(name)
            self._observer(events.slide_started(job, self._numbers.setdefault(name, len(self._numbers) + 1)))
            log.info("%s started on %s", job.path, event.place)
        elif isinstance(event, SlideProgress):
            self._rows[name] = event.progress.rows
            self._observer(events.slide_progress(job, event.progress))
        else:
            del self._submitted[name]
            self._conclude(slide, event)

    def _conclude(self, slide: SlideCheck, event: Done | Failed | OutputUnavailable | Stopped | WorkerLost) -> None:
        """Record how processing of a slide has ended."""
        if isinstance(event, Done):
            self._finish(slide, event)
        elif isinstance(event, Failed | OutputUnavailable) and event.transient and self._retry_transient(slide, event):
            pass
        elif isinstance(event, Failed):
            self._fail(slide, event)
        elif isinstance(event, WorkerLost):
            self._retry_lost(slide, event)
        else:
            self._ledger.reset(str(slide.job.name))
            self._observer(events.slide_stopped(slide.job))
            if isinstance(event, OutputUnavailable):
                self._stop(event.message, blocked=True)
            elif self._stop_flag.reason:
                self._stop(self._stop_flag.reason)
            elif self._config.time_limit is not None:
                self._stop(f"the time limit of {self._config.time_limit:g} s leaves no time for another row")
            else:
                self._stop(f"{slide.job.path.name}: its worker stopped: another run uses this output folder")

    def _retry_transient(self, slide: SlideCheck, event: Failed | OutputUnavailable) -> bool:
        """Try a slide again after a pause, where a share or a disk did not answer; return whether it will be tried."""
        name = str(slide.job.name)
        tried = self._transients[name]
        if self._stopping or tried >= len(BACK_OFF):
            return False
        self._transients[name] += 1
        pause = BACK_OFF[tried]
        self._notice(f"{event.message}; trying again in {pause:g} s ({tried + 1} of {len(BACK_OFF)})")
        self._delayed.append((time.monotonic() + pause, slide))
        self._observer(events.slide_stopped(slide.job))
        return True

    def _finish(self, slide: SlideCheck, event: Done) -> None:
        """Enter the result in the ledger; only then may the checkpoint be removed."""
        name, outcome = str(slide.job.name), event.outcome
        if outcome.record.slide["fingerprint"] != slide.fingerprint:
            self._fail(slide, Failed(f"{slide.job.path}: was changed during the run; run the same command again"))
            return
        out, record = self._config.output_folder, outcome.record
        paths = [str(item["path"]) for item in record.outputs] or [outcome.output]
        entry: dict[str, Any] = {**record.result, "fingerprint": slide.fingerprint, "record": asdict(record)}
        with suppress(OSError):  # without it, the next run compares the result's bytes
            entry["output_state"] = json.dumps({path: file_state(out / path) for path in paths})
        self._ledger.finish(name, {"key": None, **entry, "output": outcome.output, "checksum": outcome.checksum})
        shutil.rmtree(slide_paths(out, slide.job).checkpoint, ignore_errors=True)
        drop_copies(self._copies.pop(name, ()), {str(item["sha256"]) for item in record.outputs})
        self._summary.done[name] = outcome.record
        self._summary.failed.pop(name, None)
        log.info("%s done: %s", slide.job.path, json.dumps(dict(outcome.record.counts)))
        self._observer(events.slide_done(slide.job, outcome.record))
        if message := large_slide_notice(slide.job.path.name, self._config.format, outcome.record):
            self._notice(message)

    def _fail(self, slide: SlideCheck, event: Failed) -> None:
        name, job = str(slide.job.name), slide.job
        log.error("%s failed: %s\n%s", job.path, event.message, event.traceback)
        self._ledger.fail(name, event.message)
        self._failures[name] += 1
        if self._failures[name] <= self._config.retry and not slide.error and not self._stopping:
            self._notice(f"{job.path.name}: failed ({event.message}); trying again")
            self._queue.append(slide)
            return
        self._summary.failed[name] = event.message
        self._observer(events.slide_failed(job, event.message))
        if self._config.fail_fast:
            self._stop(f"{job.path.name} failed, and --fail-fast was given")

    def _retry_lost(self, slide: SlideCheck, event: WorkerLost) -> None:
        """Try again a slide whose worker has died, unless that happens every time at the same row."""
        name, job = str(slide.job.name), slide.job
        log.error("%s: its worker was lost: %s\n%s", job.path, event.reason, event.traceback)
        count, before = self._crashes.get(name, (0, row := self._rows.get(name, 0)))
        count = count + 1 if before == row else 1
        self._crashes[name] = (count, row)
        if count >= MAX_CRASHES:
            where = f"at the same place ({event.reason}; see {LOG_NAME})"
            self._fail(slide, Failed(f"{job.path}: its worker was lost {count} times {where}"))
        elif self._stopping:
            self._ledger.reset(name)
            self._observer(events.slide_stopped(job))
        else:
            self._notice(f"{job.path.name}: its worker was lost ({event.reason}); resuming from the last committed row")
            self._queue.appendleft(slide)
