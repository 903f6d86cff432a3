"""What executes slides: the interface of an executor, and the messages of its workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.segmentation.slide_files import SlideOutcome


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; `runs_on` says on what it is computed, for the log."""

    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class WorkerRejected:
    """The worker can't start: model, plugin or device; `device` says that others may."""

    message: str
    device: bool = False


@dataclass(frozen=True, slots=True)
class SlideStarted:
    """Processing of a slide starts at `place`: a device, or a machine of a cluster."""

    place: str


@dataclass(frozen=True, slots=True)
class SlideProgress:
    """A slide made progress."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Done:
    """A slide's result is complete."""

    outcome: SlideOutcome


@dataclass(frozen=True, slots=True)
class Failed:
    """A slide has no result.

    `traceback` is empty for errors that the user can fix; `transient` says that the error may pass by itself.
    """

    message: str
    traceback: str = ""
    transient: bool = False


@dataclass(frozen=True, slots=True)
class OutputUnavailable:
    """No result can be written, of this or any other slide: the disk is full, or the folder is gone.

    `transient` says that the error may pass by itself.
    """

    message: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """A slide was interrupted after a committed row: on request, or because no time is left for another row."""


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker process can't continue (memory, device); it exits after this message."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The process that worked on a slide is gone; another one resumes from the last committed row."""

    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to the user."""

    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks a worker to interrupt its slide after the next committed row."""


# Messages of a worker process about itself and its slide.
FromWorker = Ready | WorkerRejected | WorkerFailed | SlideProgress | Done | Failed | OutputUnavailable | Stopped
# Events of an executor about a slide.
SlideEvent = SlideStarted | SlideProgress | Done | Failed | OutputUnavailable | Stopped | WorkerLost


class Executor(Protocol):
    """Runs slides on workers and reports their events."""

    def wants(self) -> bool:
        """Return whether a slide submitted now would start, or may wait at the executor."""
        ...

    def is_alive(self) -> bool:
        """Return whether there is, or may yet be, a worker."""
        ...

    def submit(self, job: SlideJob) -> None:
        """Give a slide to a worker."""
        ...

    def poll(self, seconds: float) -> Iterator[tuple[SlideJob, SlideEvent] | Notice]:
        """Yield what has happened; wait for it at most `seconds`."""
        ...

    def stop(self) -> None:
        """Ask for all slides to be interrupted after their next committed row; each reports `Stopped`."""
        ...

    def close(self) -> None:
        """End at once, whatever is in progress."""
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run, as its executor and workers need to know it.

    Attributes
    ----------
    config : RunConfig
        The options of the run; a worker's has its own device and share of the threads.
    started : float
        Start of the run in seconds since 1970.
    deadline : float
        When it must have ended; infinity where it need not.
    model : str
        SHA-256 of the model file when the run started.
    """

    config: RunConfig
    started: float
    deadline: float
    model: str = ""
