"""Predictions against the truth: every image's scores, their means, and whether one prediction beats another."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.centres import centres_of, pair_centres
from nuclix.engine.evaluation.class_files import read_classes
from nuclix.engine.evaluation.class_scores import ClassScores, count_classes, score_classes
from nuclix.engine.evaluation.label_files import find_label_files, read_pair, stem_of
from nuclix.engine.evaluation.scores import LOWER_IS_BETTER, METRICS, Scores, average_hausdorff, mean_of, score_table
from nuclix.engine.evaluation.wilcoxon import signed_rank_test

if TYPE_CHECKING:
    from nuclix.ext.overlap import OverlapTable

NO_CLASS = "(none)"  # as nuclei without a class are listed
_NAMED = 5  # how many missing files a message names
_HEADERS = frozenset({"image", "name", "file", "filename", "stem"})  # of a groups file's first column


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a prediction scores against the truth.

    Attributes
    ----------
    prediction, truth : Path
        What was compared: folders or files.
    images : mapping of str to Scores
        By stem, in order of stem.
    truth_areas, prediction_areas : (N,) and (M,) int64
        Areas of all images' nuclei in pixels.
    notes : tuple of str
        What a user should know about the files.
    classes : ClassScores or None
        Scores by class, where they were asked for.
    """

    prediction: Path
    truth: Path
    images: Mapping[str, Scores]
    truth_areas: NDArray[np.int64]
    prediction_areas: NDArray[np.int64]
    notes: tuple[str, ...]
    classes: ClassScores | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether one prediction's scores exceed another's over the same images.

    Attributes
    ----------
    difference : float
        Mean of the paired differences, first minus second.
    p_value : float
        Of the one-sided exact Wilcoxon signed-rank test that the first is better.
    """

    difference: float
    p_value: float


def evaluate(prediction: Path, truth: Path, downsample: float = 1.0, classes: bool = False) -> Evaluation:
    """Score every image of `truth`.

    Parameters
    ----------
    prediction, truth : Path
        Folders whose files are matched by stem, or two files, whatever their names.
    downsample : float
        Level-0 pixels (the unit of GeoJSON) along one pixel of the label images.
    classes : bool
        Score classes, too; see `class_files.read_classes` for where they are read from.

    Returns
    -------
    Evaluation
        The scores of the images of `truth`.

    Raises
    ------
    DataError
        If an image has no prediction or a file can't be used.
    """
    truths, predictions = find_label_files(truth), find_label_files(prediction)
    notes: list[str] = []
    if not truth.is_dir() and not prediction.is_dir():
        predictions = dict(zip(truths, predictions.values(), strict=True))
    missing = [stem for stem in truths if stem not in predictions]
    if missing:
        raise DataError(f"{prediction} has no prediction for {_listed(missing)} of {truth}")
    extra = [stem for stem in predictions if stem not in truths]
    if extra:
        notes.append(f"{truth} has no truth for {_listed(extra)} of {prediction}: left out")
    images, found = {}, []
    for stem, path in truths.items():
        scored = _score_files(path, predictions[stem], downsample, classes)
        images[stem] = scored.scores
        notes.extend(scored.notes)
        found.append(scored)
    areas = [np.concatenate(each) for each in zip(*(scored.areas for scored in found), strict=True)]
    by_class = _score_classes([scored.classified for scored in found if scored.classified is not None])
    return Evaluation(prediction, truth, images, areas[0], areas[1], tuple(notes), by_class)


@dataclass(frozen=True, slots=True)
class _Classified:
    """An image's overlaps and the class of each nucleus of truth and prediction."""

    table: OverlapTable
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]]  # by centre
    truth: list[str]
    prediction: list[str]


@dataclass(frozen=True, slots=True)
class _Scored:
    scores: Scores
    areas: tuple[NDArray[np.int64], NDArray[np.int64]]
    notes: tuple[str, ...]
    classified: _Classified | None


def _score_files(truth: Path, prediction: Path, downsample: float, classes: bool) -> _Scored:
    from nuclix.ext.overlap import overlap_table

    pair = read_pair(truth, prediction, downsample)
    table = overlap_table(pair.truth, pair.prediction)
    scores = score_table(table, average_hausdorff(pair.truth, pair.prediction, table))
    classified = None
    if classes:
        names = read_classes(truth, pair.truth, table.truth_labels)
        others = read_classes(prediction, pair.prediction, table.prediction_labels)
        pairs = pair_centres(
            centres_of(pair.truth, table.truth_labels), centres_of(pair.prediction, table.prediction_labels)
        )
        classified = _Classified(table, pairs, names, others)
    return _Scored(scores, (table.truth_areas, table.prediction_areas), pair.notes, classified)


def _score_classes(images: Sequence[_Classified]) -> ClassScores | None:
    """Return the scores by class: those of the truth by name, then those of the prediction only."""
    if not images:
        return None
    known = sorted({name for image in images for name in image.truth})
    known += sorted({name for image in images for name in image.prediction} - set(known))
    index = {name: k for k, name in enumerate(known)}
    counts = []
    for image in images:
        truth, prediction = (
            np.array([index[name] for name in names], np.int64) for names in (image.truth, image.prediction)
        )
        counts.append(count_classes(image.table, truth, prediction, len(known), image.pairs))
    return score_classes(counts, [name or NO_CLASS for name in known])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def group_means(images: Mapping[str, Scores], groups: Mapping[str, str]) -> dict[str, Scores]:
    """Return the mean scores of each group of images (organs, patients), in order of name.

    Parameters
    ----------
    images : mapping of str to Scores
        By stem.
    groups : mapping of str to str
        Every image's group.

    Returns
    -------
    dict of str to Scores
        By group. Their mean is what papers call the average over patients.
    """
    members: dict[str, list[Scores]] = {}
    for stem, scores in images.items():
        members.setdefault(groups[stem], []).append(scores)
    return {name: mean_of(members[name]) for name in sorted(members)}


def read_groups(path: Path, stems: Sequence[str]) -> dict[str, str]:
    """Read which group each image belongs to.

    Parameters
    ----------
    path : Path
        A CSV file: image in the first column (with or without suffix), group in the second; a header is optional.
    stems : sequence of str
        The images that need a group.

    Returns
    -------
    dict of str to str
        The group of each of `stems`.

    Raises
    ------
    DataError
        If the file can't be read, a line has no second column, or an image has no group or two.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read as CSV: {error}") from error
    groups: dict[str, str] = {}
    for number, row in rows:
        if len(row) < 2 or not row[1].strip():
            raise DataError(f"line {number} of {path} has no group: it must be IMAGE,GROUP")
        name, group = row[0].strip(), row[1].strip()
        if number == rows[0][0] and name.lower() in _HEADERS:
            continue
        if groups.setdefault(stem_of(Path(name)), group) != group:
            raise DataError(f"{path} puts {name} into two groups, {groups[stem_of(Path(name))]} and {group}")
    missing = [stem for stem in stems if stem not in groups]
    if missing:
        raise DataError(f"{path} has no group for {_listed(missing)}")
    return {stem: groups[stem] for stem in stems}


def compare(first: Evaluation, second: Evaluation) -> dict[str, Comparison]:
    """Test for every score whether `first` is better than `second`, image by image.

    Parameters
    ----------
    first, second : Evaluation
        Of the same images.

    Returns
    -------
    dict of str to Comparison
        By metric, in the order of `Scores`.

    Raises
    ------
    DataError
        If the images differ.
    """
    if list(first.images) != list(second.images):
        raise DataError(f"{first.prediction} and {second.prediction} were not scored on the same images")
    compared = {}
    for metric in METRICS:
        pairs = zip(first.images.values(), second.images.values(), strict=True)
        differences = np.array([getattr(a, metric) - getattr(b, metric) for a, b in pairs])
        better = -differences if metric in LOWER_IS_BETTER else differences
        compared[metric] = Comparison(float(differences.mean()), signed_rank_test(better))
    return compared
