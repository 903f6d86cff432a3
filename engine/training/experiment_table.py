"""Tables of an experiment: cross-fitted scores by image, means with their spread, and the Wilcoxon test."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.evaluation.tables import markdown_table
from nuclix.engine.evaluation.wilcoxon import signed_rank_test
from nuclix.engine.files import replace_file
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.experiment import CellResult, WayScores
from nuclix.engine.training.experiment_file import Experiment
from nuclix.engine.training.validation import ImageScores

SCORES = tuple(field.name for field in fields(ImageScores))
DIGITS = 4
IMAGES_TABLE, SUMMARY_CSV, SUMMARY_MD = "scores.csv", "summary.csv", "summary.md"


@dataclass(frozen=True, slots=True)
class Row:
    """How one image scores: way of splitting, seed, fold, image, the parameters used and the scores."""

    way: str
    seed: int
    fold: int
    image: str
    parameters: Mapping[str, Any]
    scores: ImageScores


@dataclass(frozen=True, slots=True)
class Summary:
    """One way of splitting over all of its held-out images.

    Attributes
    ----------
    way : str
        Its name.
    seeds, images : int
        How many there are so far.
    aji, f1, pq : float
        Means over images of the means over seeds.
    aji_seed_sd : float
        Standard deviation of the seeds' mean AJI (n - 1); nan with one seed.
    aji_se : float
        Standard error of the mean AJI over images.
    difference : float
        Mean AJI less the baseline's, on the images that both have; nan for the baseline.
    p_value : float
        One-sided Wilcoxon signed-rank test of AJI being greater than the baseline's, paired by image.
    seconds : float
        Mean training time of a cell.
    """

    way: str
    seeds: int
    images: int
    aji: float
    f1: float
    pq: float
    aji_seed_sd: float
    aji_se: float
    difference: float
    p_value: float
    seconds: float


def crossfitted(results: Sequence[CellResult]) -> list[Row]:
    """Return each held-out image's scores with parameters that were chosen on the other folds.

    For every way of splitting, seed and fold the parameter set is taken that has the largest mean AJI over the images
    of the other folds of that seed (each predicted by a network that had not seen it). Where there is no other fold
    yet, the first set is taken. So no image has a say in the parameters that it is scored with.

    Parameters
    ----------
    results : sequence of CellResult
        Finished cells.
    """
    rows = []
    for result in results:
        for name, way in result.ways.items():
            others = [
                other.ways[name]
                for other in results
                if name in other.ways and other.cell.seed == result.cell.seed and other.cell.fold != result.cell.fold
            ]
            chosen = best_parameters(others)
            for image, scores in way.scores.items():
                cell = result.cell
                rows.append(Row(name, cell.seed, cell.fold, image, way.parameters[chosen], scores[chosen]))
    return rows


def best_parameters(ways: Sequence[WayScores]) -> int:
    """Return the index of the parameter set with the largest mean AJI over all images; 0 where there are none."""
    table = [[row.aji for row in rows] for way in ways for rows in way.scores.values()]
    return int(np.argmax(np.mean(table, axis=0))) if table else 0


def summaries(experiment: Experiment, results: Sequence[CellResult]) -> list[Summary]:
    """Return one row per way of splitting that has results, in the order of the file."""
    rows = crossfitted(results)
    seconds = {
        name: float(np.mean([item.seconds for item in results if name in item.ways]))
        for name in {name for item in results for name in item.ways}
    }
    by_image = {name: _by_image([row for row in rows if row.way == name]) for name in seconds}
    baseline = by_image.get(experiment.reference, {})
    return [
        _summary(name, [row for row in rows if row.way == name], by_image[name], baseline, seconds[name])
        for name in experiment.ways
        if name in seconds
    ]


def _by_image(rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """Return image to its scores, each the mean over seeds."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        found.setdefault(row.image, []).append([getattr(row.scores, name) for name in SCORES])
    return {image: np.mean(values, axis=0) for image, values in found.items()}


def _summary(
    name: str,
    rows: Sequence[Row],
    images: Mapping[str, NDArray[np.float64]],
    baseline: Mapping[str, NDArray[np.float64]],
    seconds: float,
) -> Summary:
    values = np.array(list(images.values()))
    seeds = sorted({row.seed for row in rows})
    by_seed = [np.mean([row.scores.aji for row in rows if row.seed == seed]) for seed in seeds]
    shared = [image for image in images if image in baseline]
    differences = np.array([images[image][0] - baseline[image][0] for image in shared])
    compares = bool(shared) and images is not baseline
    return Summary(
        name,
        len(seeds),
        len(images),
        float(values[:, 0].mean()),
        float(values[:, 1].mean()),
        float(values[:, 2].mean()),
        float(np.std(by_seed, ddof=1)) if len(seeds) > 1 else float("nan"),
        float(values[:, 0].std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan"),
        float(differences.mean()) if compares else float("nan"),
        signed_rank_test(differences) if compares else float("nan"),
        seconds,
    )


def markdown(experiment: Experiment, table: Sequence[Summary]) -> str:
    """Return the summary as Markdown, with what its columns are."""
    head = ["", "images", "seeds", "AJI", "± seeds", "± images", "F1", "PQ", "AJI - baseline", "p", "s per run"]
    lines = [head]
    for row in table:
        numbers = (row.aji, row.aji_seed_sd, row.aji_se, row.f1, row.pq)
        lines.append(
            [
                row.way,
                str(row.images),
                str(row.seeds),
                *(_number(value) for value in numbers),
                _number(row.difference, "+"),
                _number(row.p_value),
                f"{row.seconds:.0f}",
            ]
        )
    return (
        f"# {experiment.title}\n\n{markdown_table(lines)}\n\n"
        f"{experiment.folds}-fold cross-validation; each image is scored by networks that did not see its group, with "
        "post-processing parameters chosen on the other folds. Means are over images of means over seeds. ± seeds: "
        "standard deviation of the seeds' means; ± images: standard error over images. p: one-sided Wilcoxon "
        f"signed-rank test over images that AJI is greater than that of {experiment.reference}.\n"
    )


def _number(value: float, sign: str = "") -> str:
    return "" if np.isnan(value) else f"{value:{sign}.{DIGITS}f}"


def write_tables(experiment: Experiment, results: Sequence[CellResult], out: Path) -> list[Summary]:
    """Write the scores by image (CSV) and the summary (CSV, Markdown) of the cells finished so far.

    Parameters
    ----------
    experiment : Experiment
        What was compared.
    results : sequence of CellResult
        At least one.
    out : Path
        Folder for the files.

    Returns
    -------
    list of Summary
        What was written.
    """
    table = summaries(experiment, results)
    rows = [
        {
            "way": row.way,
            "seed": row.seed,
            "fold": row.fold,
            "image": row.image,
            **{name: round(getattr(row.scores, name), DIGITS) for name in SCORES},
            "parameters": " ".join(f"{key}={value}" for key, value in row.parameters.items()),
        }
        for row in crossfitted(results)
    ]
    replace_file(out / IMAGES_TABLE, _csv(rows))
    replace_file(out / SUMMARY_CSV, _csv([as_mapping(row) for row in table]))
    replace_file(out / SUMMARY_MD, markdown(experiment, table).encode())
    return table


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
