"""An experiment as a picture: each way's mean AJI with its error bar, and the images' scores as dots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclix.engine.files import replace_file
from nuclix.engine.training.experiment_file import Experiment
from nuclix.engine.training.experiment_table import Row, Summary

PLOT = "summary.png"
INCHES_WIDE, INCHES_PER_WAY, INCHES_AROUND = 7.0, 0.5, 1.2
DPI = 140
MARGIN = 0.02  # of the width, left of the title


def write_plot(experiment: Experiment, table: Sequence[Summary], rows: Sequence[Row], out: Path) -> Path:
    """Draw the means over images with their standard errors, one line per way of splitting.

    Parameters
    ----------
    experiment : Experiment
        Gives the title.
    table : sequence of Summary
        The means.
    rows : sequence of Row
        The images' scores; drawn as dots, means over seeds.
    out : Path
        Folder for ``summary.png``.

    Raises
    ------
    ImportError
        If matplotlib is not installed (the extra ``plots``).
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    figure = Figure((INCHES_WIDE, INCHES_AROUND + INCHES_PER_WAY * len(table)), layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(table):
        scores: dict[str, list[float]] = {}
        for row in rows:
            if row.way == summary.way:
                scores.setdefault(row.image, []).append(row.scores.aji)
        means = [float(np.mean(values)) for values in scores.values()]
        axes.plot(means, np.full(len(means), place), "o", color="0.75", markersize=4, zorder=1)
        error = 0.0 if np.isnan(summary.aji_se) else summary.aji_se
        axes.errorbar(summary.aji, place, xerr=error, fmt="o", color="C0", capsize=4, zorder=2)
    axes.set_yticks(range(len(table)), [item.way for item in table])
    axes.invert_yaxis()
    axes.set_xlabel("AJI: mean and standard error over images; dots are images")
    figure.suptitle(experiment.title, x=MARGIN, horizontalalignment="left", fontsize="medium")
    axes.grid(axis="x", color="0.9")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    replace_file(out / PLOT, content.getvalue())
    return out / PLOT
