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
from contextlib import closing
from dataclasses import asdict, dataclass, field

from nuclix.engine.batch import events
from nuclix.engine.batch.discover import SlideJob, find_slides
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
from nuclix.engine.batch.layout import prepare_folder, remove_temporaries, slide_paths
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.batch.outputs import large_slide_notice
from nuclix.engine.batch.processes import ProcessExecutor
from nuclix.engine.batch.resume import SlideCheck, check_results, discard_stale
from nuclix.engine.errors import ModelError, OutputError, PluginError, UsageError
from nuclix.engine.inference.model_file import find_model, model_hash
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.record import SlideRecord

log = logging.getLogger("nuclix")

# A slide that has killed its worker this often without completing another row fails.
MAX_CRASHES = 3
# Interval at which signals and the clock are checked, in seconds.
_HEARTBEAT = 0.25


@dataclass(slots=True)
class RunSummary:
    """The outcome of a run.

    Attributes
    ----------
    done : dict of str to SlideRecord
        Slides finished in this run.
    skipped : list of str
        Slides that were finished before.
    failed : dict of str to str
        Slides without result, with the reason.
    stopped : str
        Why the run ended before all slides were processed; empty if it did not.
    blocked : bool
        Whether the user must fix something before the run can resume.
    """

    done: dict[str, SlideRecord] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    blocked: bool = False


@dataclass(slots=True)
class StopFlag:
    """Set by a signal handler: why the run should stop after the current rows."""

    reason: str = ""


def run_batch(config: RunConfig, observer: Observer, stop: StopFlag) -> RunSummary:
    """Segment the nuclei of every slide.

    Parameters
    ----------
    config : RunConfig
        With slides and output folder.
    observer : callable
        Receives each `RunEvent`.
    stop : StopFlag
        Is checked several times a second.

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
    jobs = find_slides(config.inputs, out)
    try:
        prepare_folder(out)
        model = model_hash(find_model(config.model))
    except (ModelError, OutputError) as error:
        raise UsageError(str(error)) from error
    deadline = math.inf if config.time_limit is None else started + config.time_limit
    context = RunContext(config, started, deadline)
    with FolderLock(out) as lock, closing(Ledger(out)) as ledger:
        remove_temporaries(out, jobs)
        # Workers start before the slides are checked: their imports take longer.
        executor = _executor(context, len(jobs))
        try:
            try:
                slides = check_results(jobs, {row.name: row for row in ledger.rows()}, model, config)
            except PluginError as error:
                raise UsageError(str(error)) from error
            return BatchRunner(context, executor, ledger, lock, observer, stop).run(slides)
        finally:
            executor.close()


def _executor(context: RunContext, slides: int) -> Executor:
    config = context.config
    if config.scheduler is not None:
        from nuclix.engine.batch.dask import DaskExecutor

        return DaskExecutor(context, config.scheduler)
    return ProcessExecutor(context, (config.devices or (config.device,))[:slides])


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
        """Remove the checkpoints of slides that are done: a kill at the wrong moment, or a late worker, leaves one."""
        finished = {*self._summary.done, *self._summary.skipped}
        for slide in slides:
            if str(slide.job.name) in finished:
                shutil.rmtree(slide_paths(self._config.output_folder, slide.job).checkpoint, ignore_errors=True)

    def _loop(self) -> None:
        while (self._queue or self._submitted) and not self._is_over():
            self._check_stop()
            while self._queue and self._executor.wants():
                self._submit(self._queue.popleft())
            for event in self._executor.poll(_HEARTBEAT):
                if isinstance(event, Notice):
                    self._notice(event.message)
                else:
                    self._handle(*event)

    def _enlist(self, slides: Sequence[SlideCheck]) -> None:
        todo = [slide for slide in slides if not slide.done and not slide.error]
        for slide in slides:
            self._ledger.enlist(str(slide.job.name), slide.job.path, slide.size)
        self._summary.skipped = [str(slide.job.name) for slide in slides if slide.done]
        sizes = {str(slide.job.name): slide.size for slide in todo}
        self._observer(events.run_started(len(slides), len(self._summary.skipped), sizes))
        for slide in todo:
            self._ledger.reset(str(slide.job.name))
            if slide.notice:
                self._notice(slide.notice)
        self._queue.extend(sorted(todo, key=lambda slide: -slide.size))
        for slide in slides:
            if slide.error:
                self._fail(slide, Failed(slide.error))

    def _is_over(self) -> bool:
        """Say whether there is no point in waiting: time is up, or nobody is left who works."""
        if time.time() >= self._context.deadline:
            self._stop(f"the time limit of {self._config.time_limit:.0f} s is reached")
            return True
        if not self._executor.is_alive():
            self._stop("no worker is left", blocked=True)
            return True
        return False

    def _check_stop(self) -> None:
        """Pass on a signal, once; and look whether the folder is still this run's."""
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
        self._executor.stop()

    def _notice(self, message: str) -> None:
        log.info(message)
        self._observer(events.notice(message))

    def _submit(self, slide: SlideCheck) -> None:
        name = str(slide.job.name)
        try:
            discard_stale(slide)
        except OutputError as error:
            self._stop(str(error), blocked=True)
            return
        self._submitted[name] = slide
        self._executor.submit(slide.job)

    def _handle(self, job: SlideJob, event: SlideEvent) -> None:
        name = str(job.name)
        slide = self._submitted.get(name)
        if slide is None:
            log.warning("%s: late news: %s", job.path, event)
        elif isinstance(event, SlideStarted):
            self._ledger.begin(name)
            self._observer(events.slide_started(job, self._numbers.setdefault(name, len(self._numbers) + 1)))
            log.info("%s begun on %s", job.path, event.place)
        elif isinstance(event, SlideProgress):
            self._rows[name] = event.progress.rows
            self._observer(events.slide_progress(job, event.progress))
        else:
            del self._submitted[name]
            self._conclude(slide, event)

    def _conclude(self, slide: SlideCheck, event: Done | Failed | OutputUnavailable | Stopped | WorkerLost) -> None:
        """Book how work on a slide has ended."""
        if isinstance(event, Done):
            self._finish(slide, event)
        elif isinstance(event, Failed):
            self._fail(slide, event)
        elif isinstance(event, WorkerLost):
            self._retry_lost(slide, event)
        else:
            self._ledger.reset(str(slide.job.name))
            self._observer(events.slide_stopped(slide.job))
            if isinstance(event, OutputUnavailable):
                self._stop(event.message, blocked=True)
            else:
                self._stop(f"the time limit of {self._config.time_limit or 0:.0f} s leaves no time for another row")

    def _finish(self, slide: SlideCheck, event: Done) -> None:
        """Enter the result in the ledger; only then may the checkpoint be removed."""
        name, outcome = str(slide.job.name), event.outcome
        if outcome.record.slide["fingerprint"] != slide.fingerprint:
            self._fail(slide, Failed(f"{slide.job.path}: was changed while the run was on; run it again"))
            return
        entry = {
            "fingerprint": slide.fingerprint,
            "key": slide.key,
            "output": outcome.output,
            "checksum": outcome.checksum,
        }
        self._ledger.finish(name, {**entry, "record": asdict(outcome.record)})
        shutil.rmtree(slide_paths(self._config.output_folder, slide.job).checkpoint, ignore_errors=True)
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
        row = self._rows.get(name, 0)
        count, before = self._crashes.get(name, (0, row))
        count = count + 1 if before == row else 1
        self._crashes[name] = (count, row)
        if count >= MAX_CRASHES:
            said = f"its worker was lost {count} times at the same place ({event.reason}; see run.log)"
            self._fail(slide, Failed(f"{job.path}: {said}"))
        elif self._stopping:
            self._ledger.reset(name)
            self._observer(events.slide_stopped(job))
        else:
            self._notice(f"{job.path.name}: its worker was lost ({event.reason}); going on from the last committed row")
            self._queue.appendleft(slide)
