"""The report: one self-contained HTML page, rendered from ``templates/page.html``."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.batch.layout import report_path, slide_page_path
from nuclix.engine.batch.ledger import DONE, FAILED
from nuclix.engine.files import write_output
from nuclix.engine.registry import installed_version
from nuclix.engine.report.charts import (
    AreaRow,
    Interval,
    area_axis_end,
    area_histogram,
    area_ranges,
    sparkline,
    stage_columns,
    timeline,
)
from nuclix.engine.report.collect import FolderFacts, SlideFacts, collect, unfinished
from nuclix.engine.report.pictures import Picture, density_top, density_uri, edge_for, ramp_css, read_thumbnail
from nuclix.engine.report.slide_page import PageRequest, is_of_result, slide_class_uri
from nuclix.engine.report.templating import environment, page_shell
from nuclix.engine.segmentation.summary import AREA_BINS, SlideSummary, area_quantiles, read_summary

# Rows of the chart of areas; of more slides those with the smallest and the largest medians are shown.
_AREA_ROWS = 40
# Lines of what needs attention; the table has them all.
_ATTENTION_LINES = 12
_NAMES_SHOWN = 8
# The stages in the order of their colours in the style sheet.
_STAGES = ("read", "network", "stitch", "split", "checkpoint", "tissue", "thumbnail", "write")
_COLUMNS = (
    ("Slide", ""),
    ("State", ""),
    ("Size, mm", "num"),
    ("Tissue, mm²", "num"),
    ("Nuclei", "num"),
    ("Nuclei/mm²", "num"),
    ("Median area, µm²", "num"),
    ("Time", "num"),
    ("s/mm²", "num"),
    ("Notes", ""),
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A slide on the page; the maps `density` and `classes`, `sparkline` and the link `page` may be empty."""

    facts: SlideFacts
    summary: SlideSummary | None
    picture: Picture | None
    anchor: str
    density: str
    sparkline: str
    classes: str
    page: str

    @property
    def median_um2(self) -> float | None:
        """Median nuclear area."""
        found = area_quantiles(self.summary.areas, (0.5,)) if self.summary is not None else None
        return found[0] if found else None


def write_report(out: Path, target: Path) -> None:
    """Write the report of an output folder.

    Parameters
    ----------
    out : Path
        The output folder of a run, finished or not; it is only read.
    target : Path
        The page; it is never partially written.

    Raises
    ------
    UsageError
        If no run has written to `out`.
    OutputError
        If its ledger can't be read.
    OSError
        If the page can't be written.
    """
    write_output(target, render(collect(out), target).encode())


def render(folder: FolderFacts, target: Path | None = None) -> str:
    """Return the page of an output folder.

    Parameters
    ----------
    folder : FolderFacts
        What is known of it.
    target : Path or None
        Where the page goes: it links to the slides' pages that lie next to it. None for no links.
    """
    from markupsafe import Markup

    summaries = _summaries(folder)
    areas = sum((summary.areas for summary in summaries.values()), np.zeros(AREA_BINS + 1, np.int64))
    top, area_end = density_top(list(summaries.values())), area_axis_end(areas)
    entries = _entries(folder, summaries, (top, area_end))
    if target is not None:
        entries = tuple(replace(entry, page=_page_link(folder.out, entry.facts, target)) for entry in entries)
    content: dict[str, Any] = {
        "folder": folder,
        "entries": entries,
        "states": sorted({entry.facts.state for entry in entries}),
        "columns": _COLUMNS,
        "verdict": _verdict(folder),
        "last_end": folder.last and (folder.last.updated if folder.last.ended is None else folder.last.ended),
        "totals": _totals(folder, areas),
        "attention": _attention(folder),
        "attention_lines": _ATTENTION_LINES,
        "has_classes": any(entry.classes for entry in entries),
        "density_top": top,
        "area_end": area_end,
        "areas": _areas(entries, areas),
        "throughput": _throughput(folder),
        "results": _results(folder),
        "settings": [(name, _inline(value)) for name, value in folder.last.config.items()] if folder.last else [],
        "version": installed_version("nuclix"),
        "ramp": Markup(ramp_css()),
        "has_regions": any(entry.facts.regions for entry in entries),
        **page_shell(("page.css",), "page.js"),
    }
    content["sections"] = _sections(content)
    return environment().get_template("page.html").render(content) + "\n"


def _sections(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return title and anchor of the sections that the page has."""
    sections = [("Slides", "slides")]
    if content["entries"]:
        sections.append(("Pictures", "pictures"))
    if content["has_regions"]:
        sections.append(("Regions", "regions"))
    if content["areas"]:
        sections.append(("Nuclear area", "area"))
    if content["throughput"]:
        sections.append(("Throughput", "throughput"))
    if content["folder"].runs or content["results"]:
        sections.append(("Record", "record"))
    return sections


def _summaries(folder: FolderFacts) -> dict[str, SlideSummary]:
    done = [slide.name for slide in folder.slides if slide.state == DONE]
    found = {name: read_summary(report_path(folder.out, name, ".npz")) for name in done}
    return {name: summary for name, summary in found.items() if summary is not None}


def _entries(
    folder: FolderFacts, summaries: Mapping[str, SlideSummary], scales: tuple[float, float]
) -> tuple[_Entry, ...]:
    """Return the slides; `scales` are the ends of the density scale (per mm2) and of the area axis (um2)."""
    edge = edge_for(len(folder.slides))
    return tuple(
        _entry(folder.out, facts, summaries.get(facts.name), (f"slide-{number}", edge, *scales))
        for number, facts in enumerate(folder.slides, start=1)
    )


def _entry(out: Path, facts: SlideFacts, summary: SlideSummary | None, shared: tuple[str, int, float, float]) -> _Entry:
    from markupsafe import Markup

    anchor, edge, top, area_end = shared
    picture = read_thumbnail(report_path(out, facts.name, ".jpg"), edge)
    drawn = summary is not None and bool(facts.nuclei)
    density = density_uri(summary, top) if drawn and summary is not None else ""
    line = sparkline(summary.areas, area_end) if drawn and summary is not None and summary.areas.sum() else ""
    classes = slide_class_uri(facts, summary, top) if drawn else ""
    return _Entry(facts, summary, picture, anchor, density, Markup(line), classes, "")


def _page_link(out: Path, facts: SlideFacts, target: Path) -> str:
    """Return the link to a slide's page; empty where there is none of this result."""
    request = PageRequest(out, facts, target, slide_page_path(target, facts.name))
    if facts.state != DONE or not is_of_result(request):
        return ""
    return quote(os.fsencode(os.path.relpath(request.page, target.parent)))


def _verdict(folder: FolderFacts) -> dict[str, str]:
    """Return the state of the folder in one phrase, and its colour."""
    failed, left, total = folder.count(FAILED), unfinished(folder), len(folder.slides)
    if folder.live:
        return {"kind": "running", "text": f"Running: {folder.count(DONE)} of {total} slides done"}
    if left:
        return {"kind": "warn", "text": f"Not finished: {left} of {total} slides left"}
    if failed:
        return {"kind": "bad", "text": f"Finished, {failed} of {total} slides failed"}
    return {"kind": "good", "text": "Finished, all slides done"} if total else {"kind": "warn", "text": "No slides"}


def _totals(folder: FolderFacts, areas: NDArray[np.int64]) -> dict[str, float | None]:
    done = [slide for slide in folder.slides if slide.state == DONE]
    nuclei = sum(slide.nuclei or 0 for slide in done)
    tissue = sum(slide.tissue_mm2 or 0.0 for slide in done)
    wall = sum(slide.seconds.get("wall", 0.0) for slide in done)
    pixels = sum(slide.pixels - slide.pixels_resumed for slide in done)
    median = area_quantiles(areas, (0.5,))
    return {
        "done": len(done),
        "slides": len(folder.slides),
        "nuclei": nuclei,
        "tissue_mm2": tissue,
        "density": nuclei / tissue if tissue else None,
        "median_um2": median[0] if median else None,
        "seconds_per_mm2": wall / tissue if tissue else None,
        "mpx_per_s": pixels / 1e6 / wall if wall else None,
    }


def _attention(folder: FolderFacts) -> list[dict[str, str]]:
    """Return what the user should look at, if anything."""
    lines = []
    if folder.stopped:
        lines.append(_line("warn", f"The last run ended early: {folder.stopped}. The same command resumes."))
    mixed = len({json.dumps(slide.made_with, sort_keys=True) for slide in folder.slides if slide.state == DONE})
    if mixed > 1:
        lines.append(
            _line("warn", f"The results were made with {mixed} different configurations; see the record below.")
        )
    lines += [_line("bad", slide.reason, slide.name) for slide in folder.slides if slide.state == FAILED]
    warned = [slide.name for slide in folder.slides if slide.warnings and slide.state == DONE]
    if warned:
        names = ", ".join(warned[:_NAMES_SHOWN]) + (", …" if len(warned) > _NAMES_SHOWN else "")
        plural = "s have" if len(warned) > 1 else " has"
        lines.append(_line("warn", f"{len(warned)} finished slide{plural} warnings: {names}"))
    return lines


def _line(kind: str, text: str, slide: str = "") -> dict[str, str]:
    return {"kind": kind, "text": text, "slide": slide}


def _areas(entries: Sequence[_Entry], areas: NDArray[np.int64]) -> dict[str, Any]:
    from markupsafe import Markup

    if not areas.sum():
        return {}
    rows = [
        AreaRow(entry.facts.name, entry.anchor, entry.summary.areas)
        for entry in sorted(entries, key=lambda entry: entry.median_um2 or 0.0)
        if entry.summary is not None and entry.median_um2 is not None
    ]
    total, half = len(rows), _AREA_ROWS // 2
    if total > _AREA_ROWS:
        rows = [*rows[:half], *rows[-half:]]
    histogram, ranges = Markup(area_histogram(areas)), Markup(area_ranges(rows))
    return {"histogram": histogram, "ranges": ranges, "total": total, "shown": len(rows), "omitted": total - len(rows)}


def _throughput(folder: FolderFacts) -> dict[str, Any]:
    from markupsafe import Markup

    slides = sorted(
        (slide for slide in folder.slides if slide.begun is not None and slide.ended is not None),
        key=lambda slide: slide.ended or 0.0,
    )
    if not slides:
        return {}
    intervals = [
        Interval(s.begun or 0.0, s.ended or 0.0, (s.pixels - s.pixels_resumed) / 1e6, s.name, s.state) for s in slides
    ]
    columns = [
        ((slide.pixels - slide.pixels_resumed) / 1e6, slide.seconds)
        for slide in slides
        if slide.state == DONE and slide.pixels > slide.pixels_resumed
    ]
    found: dict[str, Any] = {"timeline": Markup(timeline(intervals)), "stages": []}
    if columns:
        found["stages"] = _stages([seconds for _, seconds in columns])
        found["columns"] = Markup(stage_columns(columns, _STAGES))
    return found


def _stages(seconds: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the total of each stage: the legend of the chart."""
    totals = [sum(spent.get(stage, 0.0) for spent in seconds) for stage in _STAGES]
    everything = sum(totals) or 1.0
    return [
        {"name": stage, "share": total / everything, "seconds": total}
        for stage, total in zip(_STAGES, totals, strict=True)
    ]


def _results(folder: FolderFacts) -> list[dict[str, Any]]:
    """Return what the results were made with, one entry per configuration."""
    groups: dict[str, list[SlideFacts]] = defaultdict(list)
    for slide in folder.slides:
        if slide.state == DONE:
            groups[json.dumps([slide.made_with, slide.model], sort_keys=True)].append(slide)
    return [{"count": len(slides), "made_with": _made_with(slides[0])} for slides in groups.values()]


def _made_with(slide: SlideFacts) -> list[tuple[str, str]]:
    facts = {"model": slide.model.get("name", ""), "model SHA-256": slide.made_with.get("model", "")}
    parameters = slide.model.get("parameters", {})
    facts["post-processor"] = f"{slide.model.get('postprocessor', '')} {_inline(parameters)}"
    rest = {name: value for name, value in slide.made_with.items() if name != "model"}
    return [(name, _inline(value)) for name, value in {**facts, **rest}.items()]


def _inline(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_inline(item)}" for name, item in value.items())
    return ", ".join(map(_inline, value)) if isinstance(value, list | tuple) else str(value)
