"""Leave-one-patient-out validation: each patient is scored by a network that never saw that patient.

Naylor et al., "Nuclei segmentation in histopathology images using deep neural networks", ISBI 2017 (draft, section 4).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.evaluation.scores import pixel_counts
from nuclix.engine.evaluation.tables import markdown_table
from nuclix.engine.files import replace_file
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.training.dataset import Dataset
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.log import Progress
from nuclix.engine.training.loop import Place, kept, train
from nuclix.engine.training.selection import predict
from nuclix.engine.training.validation import label, make_postprocessor

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Annotated, Recipe
    from nuclix.engine.training.schedule import Schedule

BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")  # project, tissue source site, participant
RECORD = "scores.json"
TABLES = "patients"
MEAN = "mean"
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Fold:
    """One patient and everybody else: `dataset.validation` are the patient's images, `dataset.train` the others'."""

    patient: str
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class PatientScores:
    """Means over a patient's images.

    Attributes
    ----------
    patient : str
        Who was held out.
    images : int
        How many images.
    accuracy, f1, perf : float
        Of pixels; `perf` is the mean of the true positive and the true negative rate (draft, section 4).
    aji : float
        Aggregated Jaccard Index (eq. 6 of the DIST paper).
    """

    patient: str
    images: int
    accuracy: float
    f1: float
    perf: float
    aji: float


def patients_by_barcode(names: Sequence[str]) -> dict[str, str]:
    """Return image name to patient from TCGA barcodes, of which the first three parts name a person.

    >>> patients_by_barcode(["TCGA-18-5592-01Z-00-DX1"])
    {'TCGA-18-5592-01Z-00-DX1': 'TCGA-18-5592'}
    """
    found = {name: BARCODE.match(name) for name in names}
    unnamed = [name for name, match in found.items() if match is None]
    if unnamed:
        raise DataError(f"{unnamed[0]} has no TCGA barcode in its name: list the patients in a CSV")
    return {name: match.group() for name, match in found.items() if match is not None}


def read_patients(path: Path, column: str, names: Sequence[str]) -> dict[str, str]:
    """Return image name to patient from a CSV with the columns image and `column`.

    Parameters
    ----------
    path : Path
        The CSV; rows of other images are left aside.
    column : str
        Whose values are the groups that are held out: patients, or organs, or hospitals.
    names : sequence of str
        The images; each must have a row.

    Raises
    ------
    DataError
        If the file can't be read, lacks a column or an image, or a patient's name could not be a folder's.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{path}: can't be read as a CSV: {problem}") from problem
    if not rows or not {"image", column} <= set(rows[0]):
        raise DataError(f"{path}: needs the columns image and {column}")
    found = {row["image"]: row[column] or "" for row in rows if row["image"] in set(names)}
    for name in names:
        patient = found.get(name, "")
        if not patient or patient == MEAN or patient.startswith(".") or any(sign in patient for sign in "/\\\n\0"):
            raise DataError(f"{path}: the {column} of {name} is {patient!r}, which can't name a folder of results")
    return found


def folds(dataset: Dataset, patient_of: Mapping[str, str]) -> list[Fold]:
    """Return one fold a patient, in the order of their names; the data set's own split is dissolved.

    Parameters
    ----------
    dataset : Dataset
        Its images of both parts take part; its extra images are trained on in every fold.
    patient_of : mapping
        Image name to patient.

    Raises
    ------
    DataError
        If there is one patient only.
    """
    images = sorted((*dataset.train, *dataset.validation), key=lambda item: item.name)
    patients = sorted({patient_of[item.name] for item in images})
    if len(patients) < 2:
        raise DataError(f"all {len(images)} images are of one patient ({patients[0]}): nobody is left to train on")

    def fold(patient: str) -> Fold:
        out = tuple(item for item in images if patient_of[item.name] == patient)
        rest = tuple(item for item in images if patient_of[item.name] != patient)
        return Fold(patient, replace(dataset, train=rest, validation=out, split=f"all but {patient}"))

    return [fold(patient) for patient in patients]


def score_fold(
    recipe: Recipe, fold: Fold, schedule: Schedule, place: Place, report: Callable[[Progress], None]
) -> PatientScores:
    """Train on everybody but the fold's patient and score the patient; a finished fold is read, not trained again.

    The post-processor has the first of the recipe's candidate parameters: nothing is chosen on the patient held out.

    Parameters
    ----------
    recipe : Recipe
        The method.
    fold : Fold
        Who is held out.
    schedule : Schedule
        Without early stopping, which would look at the patient held out.
    place : Place
        Its folder takes a folder of the patient's name, with checkpoint, log and scores.
    report : callable
        Called every few steps.

    Raises
    ------
    UsageError, DataError
        If early stopping was asked for, results are in the way, or earlier results have other settings.
    """
    if schedule.early_stopping > 0:
        raise UsageError("early stopping would look at the patient held out: set early stopping to 0")
    place = replace(place, folder=place.folder / fold.patient)
    record = place.folder / RECORD
    names = {
        "train": [item.name for item in fold.dataset.train],
        "out": [item.name for item in fold.dataset.validation],
    }
    settings = {**as_mapping(schedule), "recipe": repr(recipe), "start": place.start and place.start.name, **names}
    if record.exists():
        if not place.resume:
            raise UsageError(f"{record}: an earlier validation; --resume goes on with it, or choose another --out")
        return _finished(record, settings)
    network = kept(train(recipe, fold.dataset, schedule, place, report), schedule)
    execution = Execution.of(place.device, schedule.precision)
    scores = _scores(recipe, network, fold, execution)
    replace_file(record, json.dumps({"settings": settings, "scores": as_mapping(scores)}, indent=1).encode())
    return scores


def _scores(recipe: Recipe, network: torch.nn.Module, fold: Fold, execution: Execution) -> PatientScores:
    from nuclix.ext.overlap import aji, overlap_table

    processor = make_postprocessor(recipe, recipe.candidates()[0])
    images: Sequence[Annotated] = fold.dataset.validation
    rows = []
    for item, maps in zip(images, predict(recipe, network, images, execution), strict=True):
        table = overlap_table(item.labels, label(processor, maps))
        pixels = pixel_counts(table)
        rows.append((pixels.accuracy, pixels.f1, pixels.perf, aji(table)))
    return PatientScores(fold.patient, len(images), *(float(mean) for mean in np.mean(rows, axis=0)))


def _finished(record: Path, settings: Mapping[str, Any]) -> PatientScores:
    """Return the scores of an earlier run with the same settings."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        before = content["settings"]
        scores = from_mapping(PatientScores, content["scores"], str(record), DataError)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(f"{record}: can't be read: {problem}") from problem
    differing = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
    if differing:
        raise DataError(f"{record}: was made with other settings ({', '.join(differing)}); resume with the same")
    return scores


def mean_of_patients(rows: Sequence[PatientScores]) -> PatientScores:
    """Return the mean over patients, each counting once however many images there are of them (draft, section 4)."""
    names = [field.name for field in fields(PatientScores)[2:]]
    means = [float(np.mean([getattr(row, name) for row in rows])) for name in names]
    return PatientScores(MEAN, sum(row.images for row in rows), *means)


def write_tables(folder: Path, rows: Sequence[PatientScores]) -> tuple[Path, Path]:
    """Write the scores of the patients done so far, and their mean, as CSV and as Markdown; return both files."""
    table = [*rows, mean_of_patients(rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(PatientScores)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_mapping(row) for row in table)
    paths = folder / f"{TABLES}.csv", folder / f"{TABLES}.md"
    for path, content in zip(paths, (text.getvalue(), markdown(table)), strict=True):
        replace_file(path, content.encode())
    return paths


def markdown(rows: Sequence[PatientScores]) -> str:
    """Return the rows as a Markdown table."""
    head = ["patient", "images", "accuracy", "F1", "Perf", "AJI"]
    lines = [head]
    for row in rows:
        name, images, *scores = as_mapping(row).values()
        lines.append([name, str(images), *(f"{score:.{DIGITS}f}" for score in scores)])
    return f"{markdown_table(lines)}\n"
