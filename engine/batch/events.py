"""Events of a run: plain facts for whatever shows or keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.segmentation.record import SlideRecord

RUN_STARTED, RUN_ENDED = "run_started", "run_ended"
SLIDE_STARTED, SLIDE_PROGRESS, SLIDE_STOPPED = "slide_started", "slide_progress", "slide_stopped"
SLIDE_DONE, SLIDE_FAILED = "slide_done", "slide_failed"
NOTICE = "notice"

# Counts of a record that an event repeats, where the record has them.
_COUNTS = ("nuclei", "tiles", "pixels", "tissue_mm2", "pixels_resumed")


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


Observer = Callable[[RunEvent], None]


def run_started(total: int, skipped: int, sizes: Mapping[str, int]) -> RunEvent:
    """Return the event of a run whose slides are known.

    Parameters
    ----------
    total, skipped : int
        All slides, and those that are finished already.
    sizes : mapping of str to int
        Bytes of the slides to process, by name.
    """
    return RunEvent(RUN_STARTED, facts={"total": total, "skipped": skipped, "sizes": dict(sizes)})


def run_ended(stopped: str, done: int, failed: int) -> RunEvent:
    """Return the event of the run's end; `stopped` is the reason if it ended early, else empty."""
    return RunEvent(RUN_ENDED, facts={"stopped": stopped, "done": done, "failed": failed})


def slide_started(job: SlideJob, number: int) -> RunEvent:
    """Return the event of a slide, the `number`-th of the run, whose processing starts."""
    return RunEvent(SLIDE_STARTED, str(job.name), {"path": str(job.path), "number": number})


def slide_progress(job: SlideJob, progress: Progress) -> RunEvent:
    """Return the event of a finished batch of tiles."""
    facts = {
        "tiles": progress.tiles,
        "tiles_total": progress.tiles_total,
        "pixels": progress.pixels,
        "nuclei": progress.nuclei,
        "rows": progress.rows,
    }
    return RunEvent(SLIDE_PROGRESS, str(job.name), facts)


def slide_stopped(job: SlideJob) -> RunEvent:
    """Return the event of a slide that was interrupted after a committed row."""
    return RunEvent(SLIDE_STOPPED, str(job.name))


def slide_done(job: SlideJob, record: SlideRecord) -> RunEvent:
    """Return the event of a slide whose result is complete."""
    counts = {name: record.counts[name] for name in _COUNTS if name in record.counts}
    facts = {**counts, "seconds": record.seconds["wall"], "warnings": list(record.warnings)}
    return RunEvent(SLIDE_DONE, str(job.name), facts)


def slide_failed(job: SlideJob, message: str) -> RunEvent:
    """Return the event of a slide without result; the run goes on."""
    return RunEvent(SLIDE_FAILED, str(job.name), {"error": message})


def notice(message: str) -> RunEvent:
    """Return a message to the user."""
    return RunEvent(NOTICE, facts={"message": message})


def passed_over(message: str) -> RunEvent:
    """Return the notice of files that are no slides of the run, with their reason."""
    return RunEvent(NOTICE, facts={"message": message, "passed_over": True})
