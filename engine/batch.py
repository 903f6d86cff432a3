"""A batch of slides: skips what is done, goes on with what was begun, survives what fails.

Only this process writes the ledger. Workers come and go; a slide that kills its worker is tried again from its last
committed row, and given up after a few times.
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

from nuclix.engine.crew import Crew, CrewTerms, LocalCrew
from nuclix.engine.errors import ModelError, OutputError, PluginError, UsageError
from nuclix.engine.inputs import SlideJob, find_slides
from nuclix.engine.ledger import Ledger
from nuclix.engine.listener import RunListener, RunPlan
from nuclix.engine.lock import FolderLock
from nuclix.engine.messages import Advanced, Begun, Blocked, Done, Failed, Lost, Notice, SlideEvent, Stopped
from nuclix.engine.model import find_model, model_hash
from nuclix.engine.output_folder import clear_away, prepare_folder
from nuclix.engine.plan import SlidePlan, make_plans, make_room
from nuclix.engine.record import SlideRecord
from nuclix.engine.settings import PATIENCE, RunSettings
from nuclix.engine.slide_run import spool_folder

log = logging.getLogger("nuclix")

# A slide that has killed its worker this often without getting a row further is given up.
CRASHES_ALLOWED = 3
# Signals and the clock are looked at this often, in seconds.
_HEARTBEAT = 0.25


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
        Seconds after which the run must have ended.
    patience : float
        Seconds after which a worker that has not come any further is ended and its slide failed.
    scheduler : str or None
        Address of a Dask cluster that does the work, in place of this machine's devices.
    """

    devices: tuple[str, ...] = ("auto",)
    retry: int = 0
    fail_fast: bool = False
    time_limit: float | None = None
    patience: float = PATIENCE
    scheduler: str | None = None


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
    blocked : bool
        Whether what stopped it must be mended before it can go on.
    """

    done: dict[str, SlideRecord] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    blocked: bool = False


@dataclass(slots=True)
class StopFlag:
    """What a signal handler sets: why the run should stop after the current rows."""

    reason: str = ""


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
    OutputError
        If the ledger can't be opened.
    """
    started = time.time()
    jobs = find_slides(inputs, settings.out)
    try:
        prepare_folder(settings.out)
        model = model_hash(find_model(settings.model))
    except (ModelError, OutputError) as error:
        raise UsageError(str(error)) from error
    deadline = math.inf if options.time_limit is None else started + options.time_limit
    terms = CrewTerms(settings, started, deadline, options.patience)
    with FolderLock(settings.out) as lock, closing(Ledger(settings.out)) as ledger:
        clear_away(settings.out, jobs)
        # Workers start before the slides are looked at: their imports take longer.
        crew = _crew(terms, options, len(jobs))
        try:
            try:
                plans = make_plans(jobs, {row.name: row for row in ledger.rows()}, model, settings)
            except PluginError as error:
                raise UsageError(str(error)) from error
            batch = Batch(terms, options, Desk(crew, ledger, listener, stop, lock))
            return batch.run(plans)
        finally:
            crew.close()


def _crew(terms: CrewTerms, options: BatchOptions, slides: int) -> Crew:
    if options.scheduler is not None:
        from nuclix.engine.cluster import DaskCrew

        return DaskCrew(terms, options.scheduler)
    return LocalCrew(terms, options.devices[:slides])


@dataclass(frozen=True, slots=True)
class Desk:
    """What a batch has to do with: who works, what remembers, who is told, and who may end it."""

    crew: Crew
    ledger: Ledger
    listener: RunListener
    stop: StopFlag
    lock: FolderLock


class Batch:
    """The state of a run.

    Parameters
    ----------
    terms : CrewTerms
        What the crew was told.
    options : BatchOptions
        How the batch is run.
    desk : Desk
        What it has to do with.
    """

    def __init__(self, terms: CrewTerms, options: BatchOptions, desk: Desk) -> None:
        self._terms = terms
        self._options = options
        self._desk = desk
        self._summary = RunSummary()
        self._queue: deque[SlidePlan] = deque()
        self._out: dict[str, SlidePlan] = {}  # handed out
        self._numbers: dict[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._rows: dict[str, int] = {}  # committed, as far as is known
        self._crashes: dict[str, tuple[int, int]] = {}  # how often, without getting further than which row
        self._stopping = False

    def run(self, plans: Sequence[SlidePlan]) -> RunSummary:
        """Run what is not done yet, the biggest slides first.

        Raises
        ------
        UsageError
            If no worker can be started.
        """
        try:
            self._enlist(plans)
            self._work()
            for name, plan in self._out.items():  # left by force
                self._desk.ledger.reset(name)
                self._desk.listener.slide_stopped(plan.job)
        except OutputError as error:  # the ledger's; what it does not know of will be made again
            self._stop(str(error), blocked=True)
        self._sweep(plans)
        return self._summary

    def _sweep(self, plans: Sequence[SlidePlan]) -> None:
        """Clear away the spools of slides that are done: a kill at the wrong moment, or a late worker, leaves one."""
        finished = {*self._summary.done, *self._summary.skipped}
        for plan in plans:
            if str(plan.job.name) in finished:
                shutil.rmtree(spool_folder(self._terms.settings.out, plan.job), ignore_errors=True)

    def _work(self) -> None:
        while (self._queue or self._out) and not self._is_over():
            self._look_at_the_clock()
            while self._queue and self._desk.crew.wants():
                self._hand_out(self._queue.popleft())
            for event in self._desk.crew.listen(_HEARTBEAT):
                if isinstance(event, Notice):
                    self._notice(event.message)
                else:
                    self._take(*event)

    def _enlist(self, plans: Sequence[SlidePlan]) -> None:
        ledger, listener = self._desk.ledger, self._desk.listener
        todo = [plan for plan in plans if not plan.done and not plan.error]
        for plan in plans:
            ledger.enlist(str(plan.job.name), plan.job.path, plan.size)
        self._summary.skipped = [str(plan.job.name) for plan in plans if plan.done]
        sizes = {str(plan.job.name): plan.size for plan in todo}
        listener.run_started(RunPlan(len(plans), len(self._summary.skipped), sizes))
        for plan in todo:
            ledger.reset(str(plan.job.name))
            if plan.notice:
                self._notice(plan.notice)
        self._queue.extend(sorted(todo, key=lambda plan: -plan.size))
        for plan in plans:
            if plan.error:
                self._fail(plan, Failed(plan.error))

    def _is_over(self) -> bool:
        """Say whether there is no point in waiting: time is up, or nobody is left who works."""
        if time.time() >= self._terms.deadline:
            self._stop(f"the time limit of {self._options.time_limit:.0f} s is reached")
            return True
        if not self._desk.crew.lives():
            self._stop("no worker is left", blocked=True)
            return True
        return False

    def _look_at_the_clock(self) -> None:
        """Pass on a signal, once; and look whether the folder is still this run's."""
        if self._desk.stop.reason:
            self._stop(self._desk.stop.reason)
        elif not self._desk.lock.is_held():
            self._stop(f"{self._terms.settings.out}: is gone, or another run has taken it over", blocked=True)

    def _stop(self, reason: str, *, blocked: bool = False) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._summary.stopped, self._summary.blocked = reason, blocked
        self._queue.clear()
        self._desk.crew.stop()

    def _notice(self, message: str) -> None:
        log.info(message)
        self._desk.listener.notice(message)

    def _hand_out(self, plan: SlidePlan) -> None:
        name = str(plan.job.name)
        try:
            make_room(plan)
        except OutputError as error:
            self._stop(str(error), blocked=True)
            return
        self._out[name] = plan
        self._desk.crew.hand_out(plan.job)

    def _take(self, job: SlideJob, event: SlideEvent) -> None:
        name = str(job.name)
        plan = self._out.get(name)
        if plan is None:
            log.warning("%s: late news: %s", job.path, event)
        elif isinstance(event, Begun):
            self._desk.ledger.begin(name)
            self._desk.listener.slide_started(job, self._numbers.setdefault(name, len(self._numbers) + 1))
            log.info("%s begun on %s", job.path, event.place)
        elif isinstance(event, Advanced):
            self._rows[name] = event.progress.rows
            self._desk.listener.slide_progress(job, event.progress)
        else:
            del self._out[name]
            self._conclude(plan, event)

    def _conclude(self, plan: SlidePlan, event: Done | Failed | Blocked | Stopped | Lost) -> None:
        """Book how work on a slide has ended."""
        if isinstance(event, Done):
            self._finish(plan, event)
        elif isinstance(event, Failed):
            self._fail(plan, event)
        elif isinstance(event, Lost):
            self._lose(plan, event)
        else:
            self._desk.ledger.reset(str(plan.job.name))
            self._desk.listener.slide_stopped(plan.job)
            if isinstance(event, Blocked):
                self._stop(event.message, blocked=True)
            else:
                self._stop(f"the time limit of {self._options.time_limit or 0:.0f} s leaves no time for another row")

    def _finish(self, plan: SlidePlan, event: Done) -> None:
        """Enter the result in the ledger; only then may the spool go."""
        name, outcome = str(plan.job.name), event.outcome
        if outcome.record.slide["fingerprint"] != plan.mark:
            self._fail(plan, Failed(f"{plan.job.path}: was changed while the run was on; run it again"))
            return
        entry = {"fingerprint": plan.mark, "key": plan.key, "output": outcome.output, "checksum": outcome.checksum}
        self._desk.ledger.finish(name, {**entry, "record": asdict(outcome.record)})
        shutil.rmtree(spool_folder(self._terms.settings.out, plan.job), ignore_errors=True)
        self._summary.done[name] = outcome.record
        self._summary.failed.pop(name, None)
        log.info("%s done: %s", plan.job.path, json.dumps(dict(outcome.record.counts)))
        self._desk.listener.slide_done(plan.job, outcome.record)

    def _fail(self, plan: SlidePlan, event: Failed) -> None:
        name, job = str(plan.job.name), plan.job
        log.error("%s failed: %s\n%s", job.path, event.message, event.traceback)
        self._desk.ledger.fail(name, event.message)
        self._failures[name] += 1
        if self._failures[name] <= self._options.retry and not plan.error and not self._stopping:
            self._notice(f"{job.path.name}: failed ({event.message}); trying again")
            self._queue.append(plan)
            return
        self._summary.failed[name] = event.message
        self._desk.listener.slide_failed(job, event.message)
        if self._options.fail_fast:
            self._stop(f"{job.path.name} failed, and --fail-fast was given")

    def _lose(self, plan: SlidePlan, event: Lost) -> None:
        """Try again a slide whose worker has died, unless that happens every time at the same row."""
        name, job = str(plan.job.name), plan.job
        log.error("%s: its worker was lost: %s\n%s", job.path, event.reason, event.traceback)
        row = self._rows.get(name, 0)
        count, before = self._crashes.get(name, (0, row))
        count = count + 1 if before == row else 1
        self._crashes[name] = (count, row)
        if count >= CRASHES_ALLOWED:
            said = f"its worker was lost {count} times at the same place ({event.reason}; see run.log)"
            self._fail(plan, Failed(f"{job.path}: {said}"))
        elif self._stopping:
            self._desk.ledger.reset(name)
            self._desk.listener.slide_stopped(job)
        else:
            self._notice(f"{job.path.name}: its worker was lost ({event.reason}); going on from the last committed row")
            self._queue.appendleft(plan)
