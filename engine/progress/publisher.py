"""Pass each event of a run to whatever shows or keeps it, with the state of the run after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nuclix.engine.batch import events
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.progress.meter import RunMeter, RunSnapshot


class EventSink(Protocol):
    """Shows or keeps events."""

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Take an event, with the state of the run after it."""
        ...


class EventPublisher:
    """Updates the meter with each event and passes it on; an `Observer` of a run.

    Parameters
    ----------
    meter : RunMeter
        Is kept up to date.
    sinks : sequence of EventSink
        Receive every event.

    Attributes
    ----------
    started : bool
        Whether the run has reported its slides.
    """

    def __init__(self, meter: RunMeter, sinks: Sequence[EventSink]) -> None:
        self._meter = meter
        self._sinks = tuple(sinks)
        self.started = False

    def __call__(self, event: RunEvent) -> None:
        """Publish an event."""
        self.started = self.started or event.kind == events.RUN_STARTED
        self._meter.update(event)
        now = self._meter.snapshot()
        for sink in self._sinks:
            sink.take(event, now)

    def run_ended(self, stopped: str) -> None:
        """Publish the end of the run; `stopped` is the reason if it ended early, else empty."""
        now = self._meter.snapshot()
        self(events.run_ended(stopped, now.done, now.failed))
