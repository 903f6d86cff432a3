"""What a run tells whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nuclix.engine.inputs import SlideJob
from nuclix.engine.pipeline import Progress
from nuclix.engine.record import SlideRecord


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run is about to do.

    Attributes
    ----------
    total, skipped : int
        Slides that were asked for, and those of them that are done already.
    sizes : mapping of str to int
        Bytes of the slides to come, by name.
    """

    total: int
    skipped: int
    sizes: Mapping[str, int]


class RunListener(Protocol):
    """Is told how the run goes."""

    def run_started(self, plan: RunPlan) -> None:
        """Take note that the slides are known."""
        ...

    def slide_started(self, job: SlideJob, number: int) -> None:
        """Take note that work on a slide begins."""
        ...

    def slide_progress(self, job: SlideJob, progress: Progress) -> None:
        """Take note that a batch of tiles is done."""
        ...

    def slide_stopped(self, job: SlideJob) -> None:
        """Take note that work on the slide was left after a committed row, as asked."""
        ...

    def slide_done(self, job: SlideJob, record: SlideRecord) -> None:
        """Take note that the slide's file has its final name."""
        ...

    def slide_failed(self, job: SlideJob, message: str) -> None:
        """Take note that the slide has no result; the run goes on."""
        ...

    def notice(self, message: str) -> None:
        """Pass on something that the user should know."""
        ...
