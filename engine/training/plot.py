"""The training's log as a picture: losses above, scores below, over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nuclix.engine.progress.text import tick
from nuclix.engine.report.axes import Axis, nice_step
from nuclix.engine.report.charts import escape

WIDTH, HEIGHT = 760, 470
LEFT, RIGHT = 58, 748
LOSS, SCORES = (34, 220), (266, 430)  # top and bottom of the two panels
SHORT_DECADES, LONG_DECADES = 1.2, 3.0  # a log axis shorter or longer than these has finer or coarser ticks
ANY_LOSS = (1e-9, 1e9)  # what is drawn of it
SCORE_STEP = 0.1  # ends of the scores' axis are multiples of it
STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #444; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: #e4e4e4; } .axis { stroke: #888; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.loss { stroke: #9aa7b4; } .validation_loss { stroke: #c2410c; }
.aji { stroke: #15803d; } .f1 { stroke: #1d4ed8; } .pq { stroke: #9333ea; }
circle { stroke: none; } circle.validation_loss { fill: #c2410c; }
circle.aji { fill: #15803d; } circle.f1 { fill: #1d4ed8; } circle.pq { fill: #9333ea; }
@media (prefers-color-scheme: dark) {
  svg { background: #16181b; } text { fill: #c9ccd1; } .grid { stroke: #2b2f34; } .loss { stroke: #6b7785; }
}
"""
NAMES = {"loss": "loss", "validation_loss": "validation loss", "aji": "AJI", "f1": "F1", "pq": "PQ"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A column of the log: its name there, and its points (step, value) in the order of the steps."""

    name: str
    points: tuple[tuple[float, float], ...]


def training_plot(rows: Sequence[Mapping[str, str]]) -> str:
    """Draw a training's log as one self-contained SVG file.

    Parameters
    ----------
    rows : sequence of mapping
        The rows of the CSV (see `nuclix.engine.training.log.COLUMNS`); numbers that are missing, scores beyond 0..1
        and losses that are not positive are left out.

    Returns
    -------
    str
        XML; the loss has a logarithmic axis.
    """
    losses = [_curve(rows, name, ANY_LOSS) for name in ("loss", "validation_loss")]
    scores = [_curve(rows, name, (0.0, 1.0)) for name in ("aji", "f1", "pq")]
    last = max((step for curve in losses + scores for step, _ in curve.points), default=1.0)
    steps = Axis(0.0, max(last, 1.0), LEFT, RIGHT)
    levels = [math.log10(value) for curve in losses for _, value in curve.points]
    height, ticks = _log_axis(levels, *LOSS)
    logged = [Curve(curve.name, tuple((step, math.log10(value)) for step, value in curve.points)) for curve in losses]
    parts = [*_frame(ticks, steps, LOSS), *_legend(losses, LOSS[0]), *_drawn(logged, steps, height)]
    share = _share_axis([value for curve in scores for _, value in curve.points], *SCORES)
    marks = [(share.at(value), tick(value)) for value in share.ticks(5)]
    parts += [*_frame(marks, steps, SCORES), *_legend(scores, SCORES[0]), *_drawn(scores, steps, share)]
    for value in steps.ticks(8):
        parts.append(_text(steps.at(value), SCORES[1] + 17, tick(value), "middle"))
    parts.append(_text((LEFT + RIGHT) / 2, SCORES[1] + 34, "step", "middle"))
    content = "\n".join([f"<style>{STYLE}</style>", *parts])
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = f'role="img" aria-label="{_summary(losses + scores)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {title}>\n{content}\n</svg>\n'


def _curve(rows: Sequence[Mapping[str, str]], name: str, within: tuple[float, float]) -> Curve:
    """Return a column's points; what is not a number `within` these has none."""
    points = []
    for row in rows:
        try:
            step, value = float(row["step"]), float(row[name])
        except (KeyError, TypeError, ValueError):
            continue  # an empty cell, or a row that a kill cut short
        if 0 <= step < math.inf and within[0] <= value <= within[1]:
            points.append((step, value))
    return Curve(name, tuple(points))


def _log_axis(levels: Sequence[float], top: float, bottom: float) -> tuple[Axis, list[tuple[float, str]]]:
    """Return an axis over logarithms, and where its ticks stand with what they say."""
    low, high = (min(levels), max(levels)) if levels else (-1.0, 0.0)
    room = max(0.05 * (high - low), 0.02)
    axis = Axis(low - room, high + room, bottom, top)
    if axis.high - axis.low >= SHORT_DECADES:
        factors = (1, 2, 5) if axis.high - axis.low <= LONG_DECADES else (1,)
        values = [f * 10.0**power for power in range(math.floor(axis.low), math.ceil(axis.high)) for f in factors]
    else:
        step = nice_step(10**axis.high - 10**axis.low, 5)
        first = math.ceil(10**axis.low / step)
        values = [index * step for index in range(first, math.floor(10**axis.high / step) + 1)]
    inside = [value for value in values if axis.low <= math.log10(value) <= axis.high]
    return axis, [(axis.at(math.log10(value)), f"{value:.4g}") for value in inside]


def _share_axis(values: Sequence[float], top: float, bottom: float) -> Axis:
    """Return an axis for scores that ends at tenths around them."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = math.floor(low / SCORE_STEP) * SCORE_STEP
    return Axis(low, max(math.ceil(high / SCORE_STEP) * SCORE_STEP, low + SCORE_STEP), bottom, top)


def _frame(ticks: Sequence[tuple[float, str]], steps: Axis, panel: tuple[int, int]) -> list[str]:
    parts = []
    for y, text in ticks:
        parts += [_line((LEFT, y, RIGHT, y), "grid"), _text(LEFT - 7, y + 4, text, "end")]
    for value in steps.ticks(8):
        parts.append(_line((steps.at(value), panel[1], steps.at(value), panel[1] + 4), "axis"))
    return [*parts, _line((LEFT, panel[1], RIGHT, panel[1]), "axis")]


def _drawn(curves: Sequence[Curve], steps: Axis, heights: Axis) -> list[str]:
    """Return each curve as a line; those that have few points, as validations do, with a dot at each."""
    parts = []
    for curve in curves:
        if not curve.points:
            continue
        places = [(steps.at(step), heights.at(value)) for step, value in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve {curve.name}" points="{line}"/>')
        if curve.name != "loss":
            parts += [f'<circle class="{curve.name}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places]
    return parts


def _legend(curves: Sequence[Curve], top: float) -> list[str]:
    parts, x = [], float(LEFT)
    for curve in curves:
        if not curve.points:
            continue
        text = f"{NAMES[curve.name]} {curve.points[-1][1]:.4g}"
        parts.append(
            f'<line x1="{x:.0f}" y1="{top - 16}" x2="{x + 18:.0f}" y2="{top - 16}" class="curve {curve.name}"/>'
        )
        parts.append(_text(x + 24, top - 12, text))
        x += 48 + 6.8 * len(text)
    return parts


def _summary(curves: Sequence[Curve]) -> str:
    ends = [f"{NAMES[curve.name]} {curve.points[-1][1]:.4g}" for curve in curves if curve.points]
    return escape(f"Training: {', '.join(ends) or 'nothing yet'}")


def _line(ends: tuple[float, float, float, float], kind: str) -> str:
    x1, y1, x2, y2 = ends
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
