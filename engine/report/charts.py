"""Charts as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.progress.text import duration, grouped, one_line, shortened, significant, tick
from nuclix.engine.report.axes import Axis, TimeAxis, axis_from_zero, time_axis
from nuclix.engine.segmentation.summary import AREA_BIN_UM2, AREA_BINS, area_quantiles

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 34
# Bars along the timeline; more would be thinner than two pixels.
_COLUMNS = 160
_WIDEST = 72.0
# The share of nuclei that an area axis shows; beyond it lie a few clumps.
_AREA_SHARE = 0.995
_AREA_BARS = 45
_BAR, _BAR_GAP = 14, 3
_ROW, _NAME = 20, 28
QUARTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Interval:
    """A slide's time on a worker: from when to when, its megapixels, its name and what came of it (a CSS class)."""

    begun: float
    ended: float
    megapixels: float
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class AreaRow:
    """A slide's nuclear area: its name, where its picture stands on the page, and counts by bin."""

    name: str
    anchor: str
    areas: NDArray[np.int64]


def escape(value: object) -> str:
    """Return a value as text for an SVG element or a quoted attribute.

    >>> escape('<img src=x onerror="alert(1)">')
    '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    return html.escape(one_line(str(value)), quote=True)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _label(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _line(ends: tuple[float, float, float, float], kind: str = "grid") -> str:
    x1, y1, x2, y2 = ends
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _rect(box: tuple[float, float, float, float], kind: str, title: str = "") -> str:
    x, y, width, height = box
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" class="{kind}">{inner}</rect>'


def _left_axis(axis: Axis, name: str) -> list[str]:
    parts = [_label(_LEFT, _TOP, name, "unit")]
    for value in axis.ticks(4):
        y = axis.at(value)
        parts += [_line((_LEFT, y, WIDTH - _RIGHT, y)), _label(_LEFT - 6, y + 3.5, tick(value), "end")]
    return parts


def _bottom_axis(axis: Axis, y: float, name: str) -> list[str]:
    parts = [_line((axis.start, y, axis.end, y), "axis")]
    for value in axis.ticks(8):
        parts += [
            _line((axis.at(value), y, axis.at(value), y + 4), "axis"),
            _label(axis.at(value), y + 16, tick(value), "middle"),
        ]
    return [*parts, _label((axis.start + axis.end) / 2, y + 31, name, "middle unit")]


def _time_ticks(axis: TimeAxis, y: float) -> list[str]:
    parts = [_line((axis.start, y, axis.end, y), "axis")]
    free = axis.start - 1.0
    for moment, text in axis.ticks():
        x = axis.at(moment)
        if x < free:
            continue
        free = x + 8.0 * len(text)
        parts += [_line((x, y, x, y + 4), "axis"), _label(x, y + 16, text, "middle")]
    return parts + [_label(x, y + 4, "//", "middle cut") for x in axis.cuts()]


def area_axis_end(areas: NDArray[np.int64]) -> float:
    """Return where the axis of an area chart ends, in um2: all but a few nuclei lie before it."""
    found = area_quantiles(areas, (_AREA_SHARE,))
    return max(found[0] if found else 0.0, 20 * AREA_BIN_UM2)


def area_bars(areas: NDArray[np.int64], end: float) -> tuple[NDArray[np.int64], float]:
    """Return the counts of about `_AREA_BARS` bars up to `end` um2, and what a bar spans; bins are joined whole."""
    end = min(end, AREA_BINS * AREA_BIN_UM2)
    bins = max(1, round(end / AREA_BIN_UM2 / _AREA_BARS))
    count = min(AREA_BINS // bins, int(np.ceil(end / AREA_BIN_UM2 / bins)))
    return areas[: count * bins].reshape(count, bins).sum(axis=1), AREA_BIN_UM2 * bins


def area_histogram(areas: NDArray[np.int64]) -> str:
    """Draw how large nuclei are: bars in shares of all nuclei, with median and quartiles.

    Parameters
    ----------
    areas : (AREA_BINS + 1,) int64
        Counts by bin, not all zero.
    """
    height, base = 250, 250 - _BOTTOM - 2
    total = int(areas.sum())
    x = Axis(0.0, area_axis_end(areas), _LEFT, WIDTH - _RIGHT)
    bars, step = area_bars(areas, x.high)
    shown = bars / total * 100
    y = axis_from_zero(float(shown.max()), base, _TOP + 16)
    parts = _left_axis(y, "% of nuclei")
    for index, share in enumerate(shown):
        left, right = x.at(index * step), x.at((index + 1) * step)
        tip = f"{index * step:g} to {(index + 1) * step:g} µm²: {share:.2f} %"
        parts.append(_rect((left + 0.5, y.at(share), max(0.5, right - left - 1), base - y.at(share)), "bar", tip))
    low, middle, high = area_quantiles(areas, (0.25, 0.5, 0.75)) or (0.0, 0.0, 0.0)
    parts += [_line((x.at(value), _TOP + 18, x.at(value), base), "mark soft") for value in (low, high)]
    parts += [
        _line((x.at(middle), _TOP + 18, x.at(middle), base), "mark"),
        _label(x.at(middle) + 4, _TOP + 26, f"median {significant(middle)} µm²", "strong"),
        *_bottom_axis(x, base, "area of a nucleus, µm²"),
    ]
    return _svg(height, f"Nuclear area of {grouped(total)} nuclei", parts)


def score_histogram(scores: NDArray[np.int64]) -> str:
    """Draw how sure the model is of nuclei: bars in shares of all that have a score.

    Parameters
    ----------
    scores : (B,) int64
        Counts by equal bins of 0 to 1, not all zero.
    """
    height, base = 210, 210 - _BOTTOM - 2
    total = int(scores.sum())
    x = Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    shown = scores / total * 100
    y = axis_from_zero(float(shown.max()), base, _TOP + 16)
    parts = _left_axis(y, "% of nuclei")
    for index, share in enumerate(shown):
        low, high = index / len(shown), (index + 1) / len(shown)
        tip = f"{low:.2f} to {high:.2f}: {share:.2f} %"
        box = (x.at(low) + 0.5, y.at(share), x.at(high) - x.at(low) - 1, base - y.at(share))
        parts.append(_rect(box, "bar", tip))
    parts += _bottom_axis(x, base, "detection probability of a nucleus")
    return _svg(height, f"Detection probability of {grouped(total)} nuclei", parts)


def sparkline(areas: NDArray[np.int64], end: float) -> str:
    """Draw a slide's nuclear areas without axes, up to `end` um2, so that slides can be compared at a glance."""
    shown, _ = area_bars(areas, end)
    top = max(1, int(shown.max()))
    points = " ".join(f"{index},{24 - 23 * count / top:.1f}" for index, count in enumerate(shown))
    return (
        f'<svg class="spark" viewBox="0 0 {len(shown) - 1} 24" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="0,24 {points} {len(shown) - 1},24"/></svg>'
    )


def area_ranges(rows: Sequence[AreaRow]) -> str:
    """Draw each slide's nuclear area: a line from the 10th to the 90th percentile, a box of quartiles, the median.

    Parameters
    ----------
    rows : sequence of AreaRow
        At least one, each with nuclei.
    """
    quantiles = [area_quantiles(row.areas, QUARTILES) or (0.0,) * len(QUARTILES) for row in rows]
    left = 190
    base = _TOP + _ROW * len(rows) + 4
    x = axis_from_zero(max(values[-1] for values in quantiles), left, WIDTH - _RIGHT, 8)
    parts = [_line((x.at(value), _TOP, x.at(value), base)) for value in x.ticks(8)]
    for index, (row, (p10, p25, p50, p75, p90)) in enumerate(zip(rows, quantiles, strict=True)):
        y = _TOP + _ROW * (index + 0.5)
        tip = (
            f"{row.name}: median {significant(p50)} µm², half of the nuclei between {significant(p25)} "
            f"and {significant(p75)} µm²"
        )
        parts += [
            f'<a href="#{escape(row.anchor)}"><text x="{left - 8}" y="{y + 4:.1f}" class="end name">'
            f"{escape(shortened(one_line(row.name), _NAME))}</text></a>",
            _line((x.at(p10), y, x.at(p90), y), "range"),
            _rect((x.at(p25), y - 5, max(1.0, x.at(p75) - x.at(p25)), 10), "box", tip),
            _line((x.at(p50), y - 6, x.at(p50), y + 6), "median"),
        ]
    parts += _bottom_axis(x, base, "area of a nucleus, µm²")
    return _svg(base + _BOTTOM + 2, "Nuclear area of each slide", parts)


def timeline(intervals: Sequence[Interval]) -> str:
    """Draw megapixels a second over time, and below it when each slide was processed.

    Parameters
    ----------
    intervals : sequence of Interval
        At least one.
    """
    axis = time_axis([(item.begun, item.ended) for item in intervals], _LEFT, WIDTH - _RIGHT)
    base = 150.0
    edges, rates = throughput(intervals, axis)
    y = axis_from_zero(float(rates.max()), base, _TOP + 16)
    parts = _left_axis(y, "Mpx/s")
    corners = [f"{axis.at(edges[0][0]):.1f},{base}"]
    for (begun, ended), rate in zip(edges, rates, strict=True):
        corners += [f"{axis.at(begun):.1f},{y.at(rate):.1f}", f"{axis.at(ended):.1f},{y.at(rate):.1f}"]
    parts.append(f'<polygon class="area" points="{" ".join(corners)} {axis.at(edges[-1][1]):.1f},{base}"/>')
    rows = rows_of(intervals)
    top = base + 8
    for item, row in zip(intervals, rows, strict=True):
        x, end = axis.at(item.begun), axis.at(item.ended)
        box = (x, top + row * (_BAR + _BAR_GAP), max(1.0, end - x - 0.5), float(_BAR))
        parts.append(_rect(box, f"lane {item.state}", f"{item.name}: {duration(item.ended - item.begun)}"))
    bottom = top + (max(rows) + 1) * (_BAR + _BAR_GAP) + 2
    parts += [_label(_LEFT - 6, top + 11, "slides", "end"), *_time_ticks(axis, bottom)]
    if len(axis.spans) > 1:
        parts.append(_label(WIDTH - _RIGHT, _TOP, "// idle time between runs, cut out", "end"))
    return _svg(bottom + 24, "Throughput over time, and when each slide was processed", parts)


def throughput(intervals: Sequence[Interval], axis: TimeAxis) -> tuple[list[tuple[float, float]], NDArray[np.float64]]:
    """Return time bins and the mean Mpx/s in each, as if every slide had gone at its own constant speed."""
    busy = sum(end - begun for begun, end in axis.spans)
    bins: list[tuple[float, float]] = []
    for begun, end in axis.spans:
        cuts = np.linspace(begun, end, max(1, round(_COLUMNS * (end - begun) / busy)) + 1).tolist()
        bins += list(pairwise(cuts))
    lows, highs = np.array(bins).T
    done = np.zeros(len(bins))
    for item in intervals:
        shared = np.minimum(highs, item.ended) - np.maximum(lows, item.begun)
        done += item.megapixels * np.maximum(shared, 0) / max(item.ended - item.begun, 1e-9)
    return bins, done / (highs - lows)


def rows_of(intervals: Sequence[Interval]) -> list[int]:
    """Return a row for each interval such that none overlaps another in its row, with as few as it takes."""
    rows = [0] * len(intervals)
    free: list[float] = []
    for index in sorted(range(len(intervals)), key=lambda item: intervals[item].begun):
        begun = intervals[index].begun
        row = next((row for row, end in enumerate(free) if end <= begun), len(free))
        if row == len(free):
            free.append(0.0)
        free[row] = max(intervals[index].ended, begun)
        rows[index] = row
    return rows


def stage_columns(slides: Sequence[tuple[float, Mapping[str, float]]], stages: Sequence[str]) -> str:
    """Draw thread seconds per megapixel by stage, stacked, slide after slide; many slides share a column.

    Parameters
    ----------
    slides : sequence of (float, mapping of str to float)
        Megapixels and seconds by stage of each slide, in the order in which they were finished; at least one.
    stages : sequence of str
        From the bottom up; the n-th has the style sheet's n-th colour.
    """
    group = -(-len(slides) // _COLUMNS)
    columns = [slides[start : start + group] for start in range(0, len(slides), group)]
    heights = np.array(
        [
            [sum(s.get(stage, 0.0) for _, s in part) / sum(mpx for mpx, _ in part) for stage in stages]
            for part in columns
        ]
    )
    base = 200.0
    y = axis_from_zero(float(heights.sum(axis=1).max()), base, _TOP + 16)
    width = min(_WIDEST, (WIDTH - _RIGHT - _LEFT) / len(columns))
    parts = _left_axis(y, "thread s/Mpx")
    for index, column in enumerate(heights):
        low = 0.0
        for number, value in enumerate(column):
            top, bottom = y.at(low + value), y.at(low)
            low += value
            box = (_LEFT + index * width, top, max(0.8, width - (1.5 if width > 4 else 0)), bottom - top)
            parts.append(_rect(box, f"s{number}", f"{stages[number]}: {significant(float(value))} s/Mpx"))
    each = "a column each" if group == 1 else f"{group} to a column"
    parts += [
        _line((_LEFT, base, WIDTH - _RIGHT, base), "axis"),
        _label(_LEFT, base + 18, f"slides in the order in which they were finished, {each}", "unit"),
    ]
    return _svg(base + 26, "Time by stage", parts)
