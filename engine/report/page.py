"""The report: one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nuclix.engine.batch.layout import report_path
from nuclix.engine.batch.ledger import DONE, FAILED
from nuclix.engine.files import replace_file
from nuclix.engine.progress.text import duration, grouped, moment, significant
from nuclix.engine.report.charts import (
    AreaRow,
    Interval,
    area_axis_end,
    area_histogram,
    area_ranges,
    night,
    stage_columns,
)
from nuclix.engine.report.collect import FolderFacts, collect, unfinished
from nuclix.engine.report.markup import escape
from nuclix.engine.report.pictures import density_top, edge_for, ramp_css, thumbnail_uri
from nuclix.engine.report.provenance import record_section
from nuclix.engine.report.slides import Shared, SlideEntry, slide_card, slide_table
from nuclix.engine.segmentation.summary import AREA_BINS, area_quantiles, read_summary

# Rows of the chart of areas; of more slides those with the smallest and the largest medians are shown.
_AREA_ROWS = 40
# Lines of what needs attention; the table has them all.
_LINES = 12
# The stages as the style sheet colours them, from the first one on.
_STAGES = ("read", "network", "stitch", "split", "spool", "tissue", "thumbnail", "write")
_HERE = Path(__file__).parent


def write_report(out: Path, target: Path) -> None:
    """Make the report of an output folder.

    Parameters
    ----------
    out : Path
        The output folder of a run, finished or not; it is only looked at.
    target : Path
        The page; it is complete or not there.

    Raises
    ------
    UsageError
        If no run has written to `out`.
    OutputError
        If its ledger can't be read.
    OSError
        If the page can't be written.
    """
    replace_file(target, render(collect(out)).encode())


def render(folder: FolderFacts) -> str:
    """Return the page of an output folder."""
    entries = _entries(folder)
    sketches = [entry.sketch for entry in entries if entry.sketch is not None and entry.facts.state == DONE]
    areas = sum((sketch.areas for sketch in sketches), np.zeros(AREA_BINS + 1, np.int64))
    shared = Shared(density_top(sketches), area_axis_end(areas))
    sections = (
        ("Slides", "slides", _slides(entries)),
        ("Pictures", "pictures", _pictures(entries, shared)),
        ("Nuclear area", "area", _areas(entries, areas)),
        ("Throughput", "throughput", _throughput(folder)),
        ("Record", "record", record_section(folder)),
    )
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for title, anchor, _ in shown)
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{content}</section>' for title, anchor, content in shown)
    return _document(folder, f"{_header(folder)}<nav>{links}</nav>{_summary(folder, areas)}{body}")


def _document(folder: FolderFacts, body: str) -> str:
    """Return the whole page; no script but its own can run, and nothing is loaded from anywhere."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{mark}'"
    made = moment(folder.made)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>nuclix: {escape(folder.out.name)}</title><style>{style}'
        f".ramp{{background:{ramp_css()}}}</style></head>"
        f'<body class="density-on"><main>{body}</main>'
        f"<footer>Made by nuclix {escape(version('nuclix'))} on {made}. Areas and densities refer to the tissue that "
        f"nuclix found, or to the whole slide where it was told to compute glass too.</footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _entries(folder: FolderFacts) -> tuple[SlideEntry, ...]:
    edge = edge_for(len(folder.slides))
    return tuple(
        SlideEntry(
            facts,
            read_summary(report_path(folder.out, facts.name, ".npz")) if facts.state == DONE else None,
            thumbnail_uri(report_path(folder.out, facts.name, ".jpg"), edge),
            f"slide-{number}",
        )
        for number, facts in enumerate(folder.slides, start=1)
    )


def _header(folder: FolderFacts) -> str:
    state, kind = _state(folder)
    period = ""
    if folder.last is not None:
        end = folder.last.ended if folder.last.ended is not None else folder.last.updated
        host = escape(folder.last.host)
        period = f"Last run {moment(folder.last.started)} to {moment(end)} on {host}."
    return (
        f'<header><div class="brand">nuclix <span>run report</span></div><h1>{escape(folder.out.resolve().name)}</h1>'
        f'<p><span class="verdict {kind}">{state}</span> <span class="quiet">{period}</span></p></header>'
    )


def _state(folder: FolderFacts) -> tuple[str, str]:
    """Return what is to be said of the folder first, and its colour."""
    failed, left, total = folder.count(FAILED), unfinished(folder), len(folder.slides)
    if folder.live:
        return f"At work: {folder.count(DONE)} of {total} slides done", "running"
    if left:
        return f"Not finished: {left} of {total} slides left", "warn"
    if failed:
        return f"Finished, {failed} of {total} slides failed", "bad"
    return ("Finished, all slides done", "good") if total else ("No slides", "warn")


def _summary(folder: FolderFacts, areas: np.ndarray) -> str:
    done = [slide for slide in folder.slides if slide.state == DONE]
    nuclei = sum(slide.nuclei or 0 for slide in done)
    tissue = sum(slide.tissue_mm2 or 0.0 for slide in done)
    wall = sum(slide.seconds.get("wall", 0.0) for slide in done)
    pixels = sum(slide.pixels - slide.pixels_resumed for slide in done)
    median = area_quantiles(areas, (0.5,))
    tiles = (
        (f"{len(done)}<small>/{len(folder.slides)}</small>", "slides done"),
        (grouped(nuclei), "nuclei"),
        (f"{significant(tissue)} <small>mm²</small>", "tissue"),
        (f"{grouped(nuclei / tissue)} <small>/mm²</small>" if tissue else "&ndash;", "nuclear density"),
        (f"{significant(median[0])} <small>µm²</small>" if median else "&ndash;", "median nuclear area"),
        (f"{significant(wall / tissue)} <small>s/mm²</small>" if tissue else "&ndash;", "time a worker needs"),
        (f"{significant(pixels / 1e6 / wall)} <small>Mpx/s</small>" if wall else "&ndash;", "speed of a worker"),
    )
    blocks = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in tiles)
    return f'<div class="tiles">{blocks}</div>{_attention(folder)}'


def _attention(folder: FolderFacts) -> str:
    """Return what someone should look at in the morning, or that there is nothing."""
    lines = []
    if folder.stopped:
        lines.append(
            ("warn", f"The last run ended early: {escape(folder.stopped)}. The same command goes on from here.")
        )
    mixed = len({json.dumps(slide.made_with, sort_keys=True) for slide in folder.slides if slide.state == DONE})
    if mixed > 1:
        lines.append(("warn", f"The results were made with {mixed} different configurations; see the record below."))
    for slide in folder.slides:
        if slide.state == FAILED:
            lines.append(("bad", f"<b>{escape(slide.name)}</b> {escape(slide.reason)}"))
    warned = [slide for slide in folder.slides if slide.warnings and slide.state == DONE]
    if warned:
        names = ", ".join(escape(slide.name) for slide in warned[:8]) + (", …" if len(warned) > 8 else "")
        plural = "s have" if len(warned) > 1 else " has"
        lines.append(("warn", f"{len(warned)} finished slide{plural} warnings: {names}"))
    if not lines:
        quiet = "Nothing needs attention so far." if folder.live else "Nothing needs attention."
        return f'<div class="attention good"><p>{quiet}</p></div>'
    items = "".join(f'<li class="{kind}">{line}</li>' for kind, line in lines[:_LINES])
    left = len(lines) - _LINES
    more = f'<li class="quiet">and {left} more, in the table below</li>' if left > 0 else ""
    return f'<div class="attention"><h2>Needs attention</h2><ul>{items}{more}</ul></div>'


def _slides(entries: tuple[SlideEntry, ...]) -> str:
    if not entries:
        return '<p class="quiet">The ledger holds no slides.</p>'
    states = sorted({entry.facts.state for entry in entries})
    choices = "".join(f'<option value="{escape(state)}">{escape(state)}</option>' for state in states)
    return (
        '<div class="controls"><input type="search" id="find" placeholder="Find a slide" aria-label="Find a slide">'
        f'<select id="state" aria-label="State"><option value="">all states</option>{choices}</select>'
        f'<span class="quiet" id="shown"></span></div>{slide_table(entries)}'
    )


def _pictures(entries: tuple[SlideEntry, ...], shared: Shared) -> str:
    if not entries:
        return ""
    scale = (
        f'<span>0</span><span class="ramp"></span><span>{grouped(shared.density_top)} nuclei/mm²</span>'
        '<label><input type="checkbox" id="density" checked> show density</label>'
    )
    cards = "".join(slide_card(entry, shared) for entry in entries)
    return (
        f'<div class="legend">{scale}</div><div class="cards">{cards}</div>'
        '<p class="quiet">All slides have the same scales. Point at a picture to see the tissue alone. '
        "Under each picture: how its nuclei are distributed by area, "
        f"from 0 to {grouped(shared.area_end)} µm².</p>"
    )


def _areas(entries: tuple[SlideEntry, ...], areas: np.ndarray) -> str:
    if not areas.sum():
        return ""
    rows = [
        AreaRow(entry.facts.name, entry.anchor, entry.sketch.areas)
        for entry in sorted(entries, key=lambda entry: entry.median_um2 or 0.0)
        if entry.sketch is not None and entry.median_um2 is not None
    ]
    note = "Line: 10th to 90th percentile. Box: quartiles. Mark: median. Slides in the order of their medians."
    if len(rows) > _AREA_ROWS:
        note += f" Of {len(rows)} slides, the {_AREA_ROWS // 2} with the smallest and the largest medians."
        rows = [*rows[: _AREA_ROWS // 2], *rows[-_AREA_ROWS // 2 :]]
    return (
        f'<h3>All slides</h3>{area_histogram(areas)}<h3>Each slide</h3>{area_ranges(rows)}<p class="quiet">{note}</p>'
    )


def _throughput(folder: FolderFacts) -> str:
    slides = sorted(
        (slide for slide in folder.slides if slide.begun is not None and slide.ended is not None),
        key=lambda slide: slide.ended or 0.0,
    )
    if not slides:
        return ""
    intervals = [
        Interval(s.begun or 0.0, s.ended or 0.0, (s.pixels - s.pixels_resumed) / 1e6, s.name, s.state) for s in slides
    ]
    parts = [night(intervals)]
    columns = [
        ((slide.pixels - slide.pixels_resumed) / 1e6, slide.seconds)
        for slide in slides
        if slide.state == DONE and slide.pixels > slide.pixels_resumed
    ]
    if columns:
        parts += [
            "<h3>Time by stage</h3>",
            _stage_bar([seconds for _, seconds in columns]),
            stage_columns(columns, _STAGES),
            '<p class="quiet">Time is summed over threads: stages run side by side.</p>',
        ]
    return "".join(parts)


def _stage_bar(seconds: Sequence[Mapping[str, float]]) -> str:
    """Return the stages' totals: their legend."""
    totals = [sum(spent.get(stage, 0.0) for spent in seconds) for stage in _STAGES]
    everything = sum(totals) or 1.0
    items = [
        f'<li><i class="s{number}"></i>{stage} <b>{total / everything:.0%}</b> <span>{duration(total)}</span></li>'
        for number, (stage, total) in enumerate(zip(_STAGES, totals, strict=True))
    ]
    return f'<ul class="stages">{"".join(items)}</ul>'
