"""Scales and ticks of charts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

# Steps between ticks of a time axis, in seconds.
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
# An idle time longer than this, and than this share of the busy time, is cut out of a time axis.
_IDLE_SECONDS = 600.0
_IDLE_SHARE = 0.1


def nice_step(span: float, ticks: int) -> float:
    """Return 1, 2 or 5 times a power of ten that cuts `span` into about `ticks` parts, never more.

    >>> nice_step(10, 5), nice_step(7, 5), nice_step(0.3, 4)
    (2.0, 2.0, 0.1)
    """
    raw = max(span, 1e-12) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= raw * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale.

    Attributes
    ----------
    low, high : float
        Values at the two ends; `high` is greater.
    start, end : float
        Where the ends lie in the drawing.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value lies, kept within the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values, at most one more."""
        step = nice_step(self.high - self.low, count)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis_from_zero(high: float, start: float, end: float, ticks: int = 4) -> Axis:
    """Return a scale from 0 to a round number that is not under `high`."""
    step = nice_step(high if high > 0 else 1.0, ticks)
    return Axis(0.0, max(1, math.ceil(high / step - 1e-9)) * step, start, end)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """A time scale without the long idle times between runs.

    Attributes
    ----------
    spans : tuple of (float, float)
        Busy times in seconds since 1970, in order.
    start, end : float
        Where the ends lie in the drawing.
    gap : float
        Width that stands for an idle time that is cut out.
    """

    spans: tuple[tuple[float, float], ...]
    start: float
    end: float
    gap: float = 14.0

    @property
    def _unit(self) -> float:
        busy = sum(end - begun for begun, end in self.spans)
        return (self.end - self.start - self.gap * (len(self.spans) - 1)) / max(busy, 1e-9)

    def at(self, moment: float) -> float:
        """Return where a moment lies; idle moments lie at the end of the busy time before them."""
        place = self.start
        for begun, end in self.spans:
            if moment <= end:
                return place + max(0.0, moment - begun) * self._unit
            place += (end - begun) * self._unit + self.gap
        return self.end

    def cuts(self) -> list[float]:
        """Return the middles of the idle times that are cut out."""
        return [self.at(end) + self.gap / 2 for _, end in self.spans[:-1]]

    def ticks(self, count: int = 8) -> list[tuple[float, str]]:
        """Return moments at round local times with what to write there."""
        busy = sum(end - begun for begun, end in self.spans)
        step = next((step for step in _TIME_STEPS if busy / step <= count), _TIME_STEPS[-1])
        form = "%H:%M:%S" if step < 60 else "%H:%M"
        found: list[tuple[float, str]] = []
        for begun, end in self.spans:
            shift = time.localtime(begun).tm_gmtoff
            first = math.ceil((begun + shift) / step) * step - shift
            moments = [float(first + index * step) for index in range(int((end - first) // step) + 1)] or [begun]
            found += [(moment, time.strftime(form, time.localtime(moment))) for moment in moments]
        return found


def time_axis(intervals: Sequence[tuple[float, float]], start: float, end: float) -> TimeAxis:
    """Return a scale over all intervals, with long gaps between them cut out.

    Parameters
    ----------
    intervals : sequence of (float, float)
        At least one, in seconds since 1970.
    start, end : float
        Where the ends lie in the drawing.
    """
    ordered = sorted(intervals)
    spans = [ordered[0]]
    busy = sum(last - first for first, last in ordered)
    longest = max(_IDLE_SECONDS, _IDLE_SHARE * busy)
    for first, last in ordered[1:]:
        if first - spans[-1][1] > longest:
            spans.append((first, last))
        else:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last))
    return TimeAxis(tuple((first, max(last, first + 1.0)) for first, last in spans), start, end)
