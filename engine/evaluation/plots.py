"""The distribution of nucleus sizes as a plot, after Fig. 7 of the DIST paper."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import UsageError

FORMATS = (".png", ".svg", ".pdf")
_POINTS = 512  # of a curve
_CUT_QUANTILE = 0.99  # curves end where the largest sample has this much of its nuclei; the paper cuts at 2000 px
_FLOOR = 1.0  # the least bandwidth, px: areas are whole pixels
_REACH = 6.0  # bandwidths beyond which a Gaussian is nothing


def check_plotting(path: Path) -> None:
    """Raise UsageError, before any work is done, where `path` can't be plotted to.

    Raises
    ------
    UsageError
        If matplotlib is not installed or the suffix is none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot writes {', '.join(FORMATS)}, not {path.name}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install matplotlib")


def size_density(areas: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate the density of areas with Gaussian kernels of Scott's bandwidth.

    Parameters
    ----------
    areas : (N,) int64
        Areas in pixels.
    points : (P,) float64
        Where to estimate, ascending.

    Returns
    -------
    (P,) float64
        Density per pixel; all zero for no areas.
    """
    if not len(areas):
        return np.zeros(len(points))
    values, counts = np.unique(areas, return_counts=True)
    bandwidth = max(_FLOOR, float(np.std(areas)) * len(areas) ** (-1 / 5))  # Scott 1992, one dimension
    density = np.zeros(len(points))
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        near = slice(*np.searchsorted(points, [value - _REACH * bandwidth, value + _REACH * bandwidth]))
        density[near] += count * np.exp(-0.5 * ((points[near] - value) / bandwidth) ** 2)
    return density / (len(areas) * bandwidth * np.sqrt(2 * np.pi))


def plot_sizes(samples: Mapping[str, NDArray[np.int64]], suffix: str) -> bytes:
    """Draw the size distributions of several samples of nuclei.

    Parameters
    ----------
    samples : mapping of str to (N,) int64
        Areas in pixels by the name to show.
    suffix : str
        One of `FORMATS`.

    Returns
    -------
    bytes
        The file's content.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    end = max((float(np.quantile(areas, _CUT_QUANTILE)) for areas in samples.values() if len(areas)), default=1.0)
    points = np.linspace(0.0, end, _POINTS)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, areas in samples.items():
        label = f"{name}: {len(areas)} nuclei"
        axes.plot(
            points,
            size_density(areas, points),
            label=f"{label}, median {np.median(areas):.0f} px" if len(areas) else label,
        )
    axes.set(xlabel="nucleus area [px]", ylabel="density", xlim=(0, end), ylim=(0, None))
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix.lower().lstrip("."), dpi=150)
    return buffer.getvalue()
