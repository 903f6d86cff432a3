"""Pass each event of a run to the sinks that show or keep it, with the state of the run after it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from nuclix.engine.batch import events
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.errors import UsageError
from nuclix.engine.progress.meter import RunMeter, RunSnapshot

log = logging.getLogger("nuclix")


class EventSink(Protocol):
    """Shows or keeps events; `name` stands for it in messages."""

    name: str

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
            self._deliver(sink, event, now)

    def _deliver(self, sink: EventSink, event: RunEvent, now: RunSnapshot) -> None:
        """Pass an event to a sink; drop one that fails (a closed pipe or terminal, a full disk): the run goes on."""
        try:
            sink.take(event, now)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it was, it is only about showing the run)
            self._sinks = tuple(other for other in self._sinks if other is not sink)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            message = f"{sink.name}: {reason or type(error).__name__}; the run goes on without it"
            log.warning(message)
            self(events.notice(message))

    def run_ended(self, stopped: str) -> None:
        """Publish the end of the run; `stopped` is the reason if it ended early, else empty."""
        now = self._meter.snapshot()
        self(events.run_ended(stopped, now.done, now.failed))
