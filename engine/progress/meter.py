"""How far a run has come, how fast it goes and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nuclix.engine.batch import events
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.segmentation.hooks import Progress

# The run's speed is that of the last minutes, in seconds: a machine's other work, and kinds of slides, come and go.
WINDOW = 180.0
_SAMPLE = 1.0


@dataclass(frozen=True, slots=True)
class SlideSnapshot:
    """A slide in progress.

    Attributes
    ----------
    name : str
        The slide.
    tiles, tiles_total : int
        Tiles done and all of them; both 0 before that is known.
    nuclei : int
        Found so far, also by earlier runs.
    mpx_per_s : float
        Megapixels at the model's scale a second, of this run.
    seconds : float
        Since this run took it up.
    """

    name: str
    tiles: int
    tiles_total: int
    nuclei: int
    mpx_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run at a moment.

    Attributes
    ----------
    total, skipped, done, failed : int
        Slides: all, done before this run, done by it, failed in it.
    seconds : float
        Since the slides are known.
    seconds_left : float or None
        Expected; None before the first tiles.
    nuclei : int
        Found by this run.
    mpx_per_s, nuclei_per_s : float
        Over all workers, in the last minutes.
    active : tuple of SlideSnapshot
        One a worker.
    """

    total: int = 0
    skipped: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    nuclei: int = 0
    mpx_per_s: float = 0.0
    nuclei_per_s: float = 0.0
    active: tuple[SlideSnapshot, ...] = ()


@dataclass(slots=True)
class _Slide:
    """What is known of a slide that this run has taken up; `first` is where it went on from."""

    started: float
    first: Progress | None = None
    last: Progress | None = None

    def gained(self, name: str) -> int:
        """Return by how much a count of `Progress` has grown in this run."""
        if self.first is None or self.last is None:
            return 0
        return max(0, getattr(self.last, name) - getattr(self.first, name))


@dataclass(frozen=True, slots=True)
class _Gains:
    """What this run had computed at a moment."""

    moment: float
    tiles: int
    pixels: int
    nuclei: int


class RunMeter:
    """Computes throughput and remaining time from the events of a run.

    The time left is the tiles left by the tiles a second of the last minutes. Of slides not yet begun the tiles are
    not known: they are taken from the files' sizes, at the tiles a byte of the slides so far, so that background and
    compression count.

    Parameters
    ----------
    clock : callable
        Gives seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._samples: deque[_Gains] = deque()
        self._total = self._skipped = self._done = self._failed = 0
        self._sizes: dict[str, int] = {}
        self._open: dict[str, None] = {}
        self._slides: dict[str, _Slide] = {}
        self._active: dict[str, None] = {}

    def update(self, event: RunEvent) -> None:
        """Account for an event."""
        if event.kind == events.RUN_STARTED:
            self._start(**event.facts)
        elif event.kind == events.SLIDE_STARTED:
            self._start_slide(event.slide)
        elif event.kind == events.SLIDE_PROGRESS:
            self._advance(event.slide, Progress(**event.facts))
        elif event.kind == events.SLIDE_DONE:
            self._finish(event.slide, int(event.facts["nuclei"]))
        elif event.kind == events.SLIDE_FAILED:
            self._leave(event.slide)
            self._failed += 1
        elif event.kind == events.SLIDE_STOPPED:
            self._active.pop(event.slide, None)

    def _start(self, total: int, skipped: int, sizes: Mapping[str, int]) -> None:
        self._started = self._clock()
        self._total, self._skipped = total, skipped
        self._sizes, self._open = dict(sizes), dict.fromkeys(sizes)

    def _start_slide(self, name: str) -> None:
        """Start a slide, or start it again after its worker died."""
        self._slides.setdefault(name, _Slide(self._clock()))
        self._active[name] = None

    def _advance(self, name: str, progress: Progress) -> None:
        """Record a slide's progress; the first record is where the slide resumed."""
        slide = self._slides.setdefault(name, _Slide(self._clock()))
        if slide.first is None:
            slide.first = progress
        slide.last = progress
        now = self._clock()
        if not self._samples or now - self._samples[-1].moment >= _SAMPLE:
            self._samples.append(self._gains(now))
        while len(self._samples) > 1 and self._samples[1].moment <= now - WINDOW:
            self._samples.popleft()

    def _finish(self, name: str, nuclei: int) -> None:
        """Record that a slide is done; the last nuclei come after the last tiles."""
        slide = self._slides.setdefault(name, _Slide(self._clock()))
        if slide.last is not None:
            slide.last = Progress(slide.last.tiles_total, slide.last.tiles_total, slide.last.pixels, nuclei)
        self._leave(name)
        self._done += 1

    def _leave(self, name: str) -> None:
        self._active.pop(name, None)
        self._open.pop(name, None)

    def snapshot(self) -> RunSnapshot:
        """Return the run as it is now."""
        now = self._clock()
        gains = self._gains(now)
        since = self._samples[0] if self._samples else gains
        seconds = max(now - since.moment, 1e-9)
        speed = max(0, gains.tiles - since.tiles) / seconds
        return RunSnapshot(
            self._total,
            self._skipped,
            self._done,
            self._failed,
            now - self._started,
            self._seconds_left(speed),
            gains.nuclei,
            max(0, gains.pixels - since.pixels) / 1e6 / seconds,
            max(0, gains.nuclei - since.nuclei) / seconds,
            tuple(self._snapshot_of(name, now) for name in tuple(self._active)),
        )

    def _snapshot_of(self, name: str, now: float) -> SlideSnapshot:
        slide = self._slides[name]
        seconds = now - slide.started
        last = slide.last or Progress(0, 0, 0, 0)
        speed = slide.gained("pixels") / 1e6 / max(seconds, 1e-9)
        return SlideSnapshot(name, last.tiles, last.tiles_total, last.nuclei, speed, seconds)

    def _gains(self, now: float) -> _Gains:
        slides = tuple(self._slides.values())
        return _Gains(now, *(sum(slide.gained(name) for slide in slides) for name in ("tiles", "pixels", "nuclei")))

    def _seconds_left(self, speed: float) -> float | None:
        if self._total and not self._open:
            return 0.0
        known = {name: slide.last for name, slide in tuple(self._slides.items()) if slide.last and name in self._sizes}
        if not speed or not known:
            return None
        seen = sum(self._sizes[name] for name in known)
        tiles_a_byte = sum(last.tiles_total for last in known.values()) / max(1, seen)
        left = 0.0
        for name in tuple(self._open):
            last = known.get(name)
            left += self._sizes[name] * tiles_a_byte if last is None else last.tiles_total - last.tiles
        return left / speed
