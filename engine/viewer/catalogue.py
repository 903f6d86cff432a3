"""The slides of an output folder, opened when they are looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.layout import objects_path, report_path
from nuclix.engine.batch.ledger import DONE
from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.report.collect import SlideFacts, collect
from nuclix.engine.report.result_slide import find_slide, open_result_slide
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.viewer.slide_session import SlideSession

SESSIONS_KEPT = 6  # slides that stay open


@dataclass(slots=True)
class _Open:
    """An open slide, how many requests use it, and the state of its objects' file."""

    session: SlideSession
    problem: str
    state: tuple[int, int]
    users: int = 0
    dropped: bool = False


class Catalogue:
    """The slides of an output folder; safe from several threads.

    Parameters
    ----------
    out : Path
        The output folder; it is only read.
    slides : Path or None
        A folder in which the slides lie now, where that is another one.

    Raises
    ------
    UsageError
        If no run has written to `out`.
    """

    def __init__(self, out: Path, slides: Path | None = None) -> None:
        self.out = out
        self._slides = slides
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._names: list[str] = []
        self.listed()

    def listed(self) -> list[dict[str, Any]]:
        """Return the slides for the browser's list, by name; read each time: a run may add to them."""
        slides = collect(self.out).slides
        with self._lock:
            known = {name: number for number, name in enumerate(self._names)}
            self._names += [slide.name for slide in slides if slide.name not in known]
            numbers = {name: number for number, name in enumerate(self._names)}
        return [{"number": numbers[slide.name], **_line(slide)} for slide in slides]

    def name(self, number: int) -> str:
        """Return the name of a slide that was listed; its number stays the same.

        Raises
        ------
        IndexError
            If there is none of this number.
        """
        return self._names[number]

    def thumbnail(self, name: str) -> bytes | None:
        """Return the picture of a slide as JPEG; None where there is none."""
        try:
            return report_path(self.out, name, ".jpg").read_bytes()
        except OSError:
            return None

    @contextmanager
    def session(self, name: str) -> Iterator[tuple[SlideSession, str]]:
        """Give a slide for the time of a request, with the reason why it can't be shown (empty if it can).

        Raises
        ------
        KeyError
            If there is no finished slide of this name.
        DataError
            If its objects can't be read.
        """
        entry = self._entered(name)
        try:
            yield entry.session, entry.problem
        finally:
            with self._lock:
                entry.users -= 1
                over = entry.dropped and not entry.users
            if over:
                entry.session.close()

    def _entered(self, name: str) -> _Open:
        with self._opening:
            path = objects_path(self.out, name)
            with self._lock:
                entry = self._open.get(name)
            if entry is None or entry.state != _state(path):
                entry = self._opened(name, path)
                self._keep(name, entry)
            with self._lock:
                self._open.move_to_end(name)
                entry.users += 1
                return entry

    def _opened(self, name: str, path: Path) -> _Open:
        slide = next((one for one in collect(self.out).slides if one.name == name and one.state == DONE), None)
        if slide is None:
            raise KeyError(name)
        state = _state(path)
        store = ObjectStore(path)
        reader: SlideReader | None = None
        problem = ""
        try:
            place = find_slide(slide.path, self.out, self._slides)
            reader = open_result_slide(place, store.slide.header, store.slide.record)
        except SlideError as error:
            problem = str(error)
        shape = store.slide.header.shape
        if shape == (0, 0):
            shape = (slide.height or 1, slide.width or 1)
        return _Open(SlideSession(store, reader, shape, report_path(self.out, name, ".jpg")), problem, state)

    def _keep(self, name: str, entry: _Open) -> None:
        """Add an open slide, and close those that have not been looked at for longest."""
        with self._lock:
            former = self._open.pop(name, None)
            over = [former] if former is not None else []
            self._open[name] = entry
            while len(self._open) > SESSIONS_KEPT:
                over.append(self._open.popitem(last=False)[1])
            for one in over:
                one.dropped = True
            idle = [one for one in over if not one.users]
        for one in idle:
            one.session.close()

    def close(self) -> None:
        """Close all slides; no request may be at work."""
        with self._lock:
            entries = list(self._open.values())
            self._open.clear()
        for entry in entries:
            entry.session.close()


def _state(path: Path) -> tuple[int, int]:
    """Return what changes when the objects' file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _line(slide: SlideFacts) -> dict[str, Any]:
    return {
        "name": slide.name,
        "state": slide.state,
        "error": slide.reason,
        "nuclei": slide.nuclei,
        "density": slide.density,
        "tissue_mm2": slide.tissue_mm2,
        "warnings": list(slide.warnings),
        "classes": [{"name": item.name, "color": item.color, "percent": item.percent} for item in slide.classes],
    }
