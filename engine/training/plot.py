"""Plot the log of a training run: losses above, validation scores below, over the steps."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

TITLES = {"loss": "loss", "validation_loss": "validation loss", "aji": "AJI", "f1": "F1", "pq": "PQ"}
LOSSES, SCORES = ("loss", "validation_loss"), ("aji", "f1", "pq")
# Losses and steps outside these limits are damage of the file; axes can't show them.
LOSS_LIMITS, SCORE_LIMITS, MAX_STEP = (1e-9, 1e9), (0.0, 1.0), 1e12


def can_plot() -> bool:
    """Return whether matplotlib (the extra ``plots``) is installed."""
    return find_spec("matplotlib") is not None


def training_plot(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Draw the log of a training run as SVG.

    Parameters
    ----------
    rows : sequence of mapping
        The rows of the CSV file (see `nuclix.engine.training.log.COLUMNS`). Missing numbers, scores outside 0..1 and
        losses that are not positive are left out.

    Returns
    -------
    bytes
        The file's content; the loss has a logarithmic axis.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for axes, names, limits in ((upper, LOSSES, LOSS_LIMITS), (lower, SCORES, SCORE_LIMITS)):
        for name in names:
            steps, values = points(rows, name, limits)
            if steps:
                axes.plot(steps, values, marker="" if name == "loss" else ".", label=f"{TITLES[name]} {values[-1]:.4g}")
                axes.legend(loc="upper right" if axes is upper else "lower right")
        axes.grid(color="0.9")
    if upper.lines:
        upper.set_yscale("log")
    upper.set_ylabel("loss")
    lower.set(xlabel="step", ylabel="validation score")
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def reliability_plot(bins: Sequence[tuple[float, float, int]]) -> bytes:
    """Draw how often nuclei with a detection score match an annotated one, as SVG.

    Parameters
    ----------
    bins : sequence of (float, float, int)
        Mean score, share of matches and number of nuclei (see `nuclix.engine.training.calibration.Reliability`).

    Returns
    -------
    bytes
        The file's content; on the diagonal scores are probabilities. The bars of a point are twice its standard error.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="score = share of matches")
    if bins:
        scores, shares, counts = zip(*bins, strict=True)
        errors = [2 * math.sqrt(share * (1 - share) / count) for share, count in zip(shares, counts, strict=True)]
        axes.errorbar(scores, shares, errors, marker="o", capsize=3, label=f"{sum(counts)} nuclei of held-out images")
        for score, share, count in bins:
            axes.annotate(str(count), (score, share), textcoords="offset points", xytext=(6, -10), fontsize="small")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="detection score", ylabel="share that matches (IoU > 0.5)")
    axes.grid(color="0.9")
    axes.legend(loc="upper left")
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def points(
    rows: Sequence[Mapping[str, str]], name: str, limits: tuple[float, float]
) -> tuple[list[float], list[float]]:
    """Return the steps and the values of a column within the limits."""
    steps, values = [], []
    for row in rows:
        step, value = _number(row.get("step", "")), _number(row.get(name, ""))
        if step is None or value is None or not 0 <= step <= MAX_STEP:
            continue
        if limits[0] <= value <= limits[1]:
            steps.append(step)
            values.append(value)
    return steps, values


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
