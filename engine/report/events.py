"""What happens in a run, as plain facts for whoever shows or keeps them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nuclix.engine.inputs import SlideJob
from nuclix.engine.listener import RunPlan
from nuclix.engine.pipeline import Progress
from nuclix.engine.record import SlideRecord
from nuclix.engine.report.meter import RunMeter, RunSnapshot

RUN_STARTED, RUN_ENDED = "run_started", "run_ended"
SLIDE_STARTED, SLIDE_PROGRESS, SLIDE_STOPPED = "slide_started", "slide_progress", "slide_stopped"
SLIDE_DONE, SLIDE_FAILED = "slide_done", "slide_failed"
NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event.

    Attributes
    ----------
    kind : str
        One of the names of this module.
    slide : str
        The slide's name, or empty for what concerns the run.
    facts : mapping
        Plain JSON values.
    time : float
        Seconds since 1970.
    """

    kind: str
    slide: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


class EventSink(Protocol):
    """Shows or keeps events."""

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Take an event, with the run as it stands after it."""
        ...


class RunEvents:
    """Listens to a run, keeps the meter, and passes each event on.

    Parameters
    ----------
    meter : RunMeter
        Is kept up to date.
    sinks : sequence of EventSink
        Are told everything.
    """

    def __init__(self, meter: RunMeter, sinks: Sequence[EventSink]) -> None:
        self._meter = meter
        self._sinks = tuple(sinks)
        self.begun = False

    def _tell(self, kind: str, job: SlideJob | None = None, facts: Mapping[str, Any] | None = None) -> None:
        event = RunEvent(kind, "" if job is None else str(job.name), facts or {})
        now = self._meter.snapshot()
        for sink in self._sinks:
            sink.take(event, now)

    def run_started(self, plan: RunPlan) -> None:
        """Begin."""
        self.begun = True
        self._meter.begin(plan.total, plan.skipped, plan.sizes)
        self._tell(RUN_STARTED, None, {"total": plan.total, "skipped": plan.skipped})

    def run_ended(self, stopped: str) -> None:
        """End; `stopped` says why the run did not go through, empty if it did."""
        now = self._meter.snapshot()
        self._tell(RUN_ENDED, None, {"stopped": stopped, "done": now.done, "failed": now.failed})

    def slide_started(self, job: SlideJob, number: int) -> None:
        """Take up a slide."""
        self._meter.take_up(str(job.name))
        self._tell(SLIDE_STARTED, job, {"path": str(job.path), "number": number})

    def slide_progress(self, job: SlideJob, progress: Progress) -> None:
        """Move on."""
        self._meter.advance(str(job.name), progress)
        facts = {"tiles": progress.tiles, "tiles_total": progress.tiles_total, "nuclei": progress.nuclei}
        self._tell(SLIDE_PROGRESS, job, facts)

    def slide_stopped(self, job: SlideJob) -> None:
        """Leave a slide."""
        self._meter.leave(str(job.name))
        self._tell(SLIDE_STOPPED, job)

    def slide_done(self, job: SlideJob, record: SlideRecord) -> None:
        """Finish a slide."""
        self._meter.finish(str(job.name), int(record.counts["nuclei"]))
        counts = {name: record.counts[name] for name in ("nuclei", "tiles", "pixels", "tissue_mm2", "pixels_resumed")
                  if name in record.counts}  # fmt: skip
        self._tell(SLIDE_DONE, job, {**counts, "seconds": record.seconds["wall"], "warnings": list(record.warnings)})

    def slide_failed(self, job: SlideJob, message: str) -> None:
        """Give a slide up."""
        self._meter.fail(str(job.name))
        self._tell(SLIDE_FAILED, job, {"error": message})

    def notice(self, message: str) -> None:
        """Pass a message on."""
        self._tell(NOTICE, None, {"message": message})
