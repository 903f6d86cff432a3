"""What a worker says of its work, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass

from nuclix.engine.pipeline import Progress
from nuclix.engine.slide_run import SlideOutcome


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker can't work at all: model, plugin or device."""

    message: str


@dataclass(frozen=True, slots=True)
class Begun:
    """Work on a slide begins, at `place`: a device, or a machine of a cluster."""

    place: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """A slide has come further."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Done:
    """A slide's result has its final name."""

    outcome: SlideOutcome


@dataclass(frozen=True, slots=True)
class Failed:
    """A slide has no result; `traceback` is empty for errors that are the user's to mend."""

    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Results can't be written where no slide would fare better: a full disk, a folder that is gone."""

    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A slide was left after a committed row: as asked, or because the time left is too short for another."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The process of the worker is of no use any more (memory, device); it ends itself after these words."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The process that worked on a slide is gone; what was committed can be gone on with."""

    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know."""

    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks a worker to leave its slide after the next committed row."""


# What a worker process says of itself and of its slide.
FromWorker = Ready | Refused | Broken | Advanced | Done | Failed | Blocked | Stopped
# What a crew says of a slide.
SlideEvent = Begun | Advanced | Done | Failed | Blocked | Stopped | Lost
