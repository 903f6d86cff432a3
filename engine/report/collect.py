"""Collect what an output folder says of its slides and runs; nothing is written, so it can be read at any time."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.layout import LEDGER_NAME
from nuclix.engine.batch.ledger import DONE, PENDING, RUNNING, Ledger, LedgerRow
from nuclix.engine.errors import UsageError
from nuclix.engine.progress.status import RunFile, is_live, read_runs

# A slide that the ledger calls running while no run is: it was killed in its midst, and the next run goes on with it.
INTERRUPTED = "interrupted"
_UM2_A_MM2 = 1e6
_NO_COLOR = (128, 128, 128)  # of a class whose colour the record does not give


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """The nuclei of one class on a slide.

    Attributes
    ----------
    name, color : str
        Of the class, the color as CSS has it.
    nuclei : int
        Found.
    percent : float
        Of all nuclei of the slide.
    density : float or None
        Nuclei per mm2 of tissue.
    """

    name: str
    color: str
    nuclei: int
    percent: float
    density: float | None


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """A slide as the report shows it; None is what is not known.

    Attributes
    ----------
    name, path : str
        Name of its results, and where it lies.
    state : str
        pending, running, interrupted, done or failed.
    error : str
        Why it failed, or empty.
    attempts, bytes : int
        How often work on it has begun; the file's size.
    begun, ended : float or None
        Seconds since 1970, of the last attempt.
    height, width : int or None
        Of the full resolution.
    mpp : float or None
        Of the full resolution.
    nuclei : int or None
        Found.
    nuclei_by_class : mapping of str to int
        Found of each class, in the order of the model's; empty for records of nuclix 0.1.
    tissue_mm2 : float or None
        Area of the tissue; of the whole slide where the run computed background too.
    pixels, pixels_resumed : int
        Computed at the model's scale, and how many of those by an earlier attempt.
    seconds : mapping of str to float
        ``wall``, and by stage over all threads, of the last attempt.
    warnings : tuple of str
        What the record warns of.
    output : str
        The result's file, relative to the folder.
    made_with : mapping
        What the result depends on, besides the slide.
    model : mapping
        Name, hash, post-processor and parameters.
    regions : tuple of mapping
        Name, class, area, nuclei and density of each region, where the run was limited to regions.
    """

    name: str
    path: str
    state: str
    error: str
    attempts: int
    bytes: int
    begun: float | None
    ended: float | None
    height: int | None
    width: int | None
    mpp: float | None
    nuclei: int | None
    nuclei_by_class: Mapping[str, int]
    tissue_mm2: float | None
    pixels: int
    pixels_resumed: int
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    output: str
    made_with: Mapping[str, Any]
    model: Mapping[str, Any]
    regions: tuple[Mapping[str, Any], ...] = ()

    @property
    def size_mm(self) -> tuple[float, float] | None:
        """Height and width."""
        if self.height is None or self.width is None or self.mpp is None:
            return None
        return self.height * self.mpp / 1000, self.width * self.mpp / 1000

    @property
    def reason(self) -> str:
        """The error without the path that it begins with, for places that name the slide anyhow."""
        return self.error.removeprefix(f"{self.path}: ")

    @property
    def density(self) -> float | None:
        """Nuclei per mm2 of tissue."""
        return self.nuclei / self.tissue_mm2 if self.nuclei is not None and self.tissue_mm2 else None

    @property
    def class_colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of each class of `nuclei_by_class`."""
        colors = {item.get("name"): item.get("color") for item in self.model.get("classes", ())}
        found = []
        for name in self.nuclei_by_class:
            red, green, blue = (colors.get(name) or _NO_COLOR)[:3]
            found.append((int(red), int(green), int(blue)))
        return tuple(found)

    @property
    def classes(self) -> tuple[ClassFacts, ...]:
        """The nuclei of each class in the model's order; empty where all are of one class."""
        if len(self.nuclei_by_class) < 2:
            return ()
        total = max(sum(self.nuclei_by_class.values()), 1)
        found = []
        for (name, nuclei), rgb in zip(self.nuclei_by_class.items(), self.class_colors, strict=True):
            color = ",".join(map(str, rgb))
            density = nuclei / self.tissue_mm2 if self.tissue_mm2 else None
            found.append(ClassFacts(name, f"rgb({color})", nuclei, 100 * nuclei / total, density))
        return tuple(found)

    @property
    def seconds_per_mm2(self) -> float | None:
        """Wall seconds per mm2 of tissue; None where only a part of the slide was computed in this attempt."""
        if not self.tissue_mm2 or self.pixels_resumed or "wall" not in self.seconds:
            return None
        return self.seconds["wall"] / self.tissue_mm2


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """An output folder at a moment.

    Attributes
    ----------
    out : Path
        The folder.
    made : float
        The moment, in seconds since 1970.
    slides : tuple of SlideFacts
        By name.
    runs : tuple of RunFile
        The oldest first.
    live : bool
        Whether the latest one is still running.
    """

    out: Path
    made: float
    slides: tuple[SlideFacts, ...]
    runs: tuple[RunFile, ...]
    live: bool

    def count(self, *states: str) -> int:
        """Return how many slides are in any of the states."""
        counts = Counter(slide.state for slide in self.slides)
        return sum(counts[state] for state in states)

    @property
    def last(self) -> RunFile | None:
        """The latest run."""
        return self.runs[-1] if self.runs else None

    @property
    def stopped(self) -> str:
        """Why slides are left over, or empty: the latest run's own reason, or that it was killed."""
        if self.live or self.last is None:
            return ""
        return self.last.stopped if self.last.ended is not None else "the run was killed or its machine went down"


def collect(out: Path) -> FolderFacts:
    """Read what an output folder knows.

    Parameters
    ----------
    out : Path
        The output folder of a run, finished or not.

    Returns
    -------
    FolderFacts

    Raises
    ------
    UsageError
        If there is no ledger in it.
    OutputError
        If the ledger can't be read.
    """
    if not (out / LEDGER_NAME).is_file():
        raise UsageError(f"{out}: no run has written here (there is no {LEDGER_NAME})")
    made = time.time()
    runs = read_runs(out)
    live = bool(runs) and is_live(out, runs[-1], made)
    ledger = Ledger(out, read_only=True)
    try:
        rows = ledger.rows()
    finally:
        ledger.close()
    return FolderFacts(out, made, tuple(_facts(row, live) for row in rows), runs, live)


def _facts(row: LedgerRow, live: bool) -> SlideFacts:
    done = row.state == DONE
    # A record of former settings stays in the ledger until the slide is done again: it is not this result's.
    record: Mapping[str, Any] = row.record if done else {}
    slide, counts = record.get("slide", {}), record.get("counts", {})
    height, width, um = slide.get("height"), slide.get("width"), slide.get("mpp")
    tissue = counts.get("tissue_mm2")
    if done and tissue is None and None not in (height, width, um):
        tissue = height * width * um**2 / _UM2_A_MM2
    key = json.loads(row.key) if done and row.key else {}
    return SlideFacts(
        name=row.name,
        path=row.path,
        state=INTERRUPTED if row.state == RUNNING and not live else row.state,
        error=row.error or "",
        attempts=row.attempts,
        bytes=row.bytes,
        begun=row.begun,
        ended=row.ended,
        height=height,
        width=width,
        mpp=um,
        nuclei=counts.get("nuclei"),
        nuclei_by_class=counts.get("nuclei_by_class", {}),
        tissue_mm2=tissue,
        pixels=counts.get("pixels", 0),
        pixels_resumed=counts.get("pixels_resumed", 0),
        seconds=record.get("seconds", {}),
        warnings=tuple(record.get("warnings", ())),
        output=row.output or "" if done else "",
        made_with={name: value for name, value in key.items() if name != "slide"},
        model=record.get("model", {}),
        regions=tuple(record.get("regions", ())),
    )


def unfinished(facts: FolderFacts) -> int:
    """Return how many slides have neither a result nor a reason for having none."""
    return facts.count(PENDING, RUNNING, INTERRUPTED)
