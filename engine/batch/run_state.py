"""The request to stop a run, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

from nuclix.engine.segmentation.record import SlideRecord


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
