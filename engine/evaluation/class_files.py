"""Classes of the nuclei of label files: GeoJSON's classifications, or a file next to a label image."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.label_files import class_file_of, read_label_image
from nuclix.engine.evaluation.polygons import GEOJSON_SUFFIXES, read_class_names

UNCLASSIFIED = ""  # QuPath's name of what has no classification
_HEADERS = frozenset({"label", "id", "object", "nucleus"})  # of a class file's first column


def read_classes(path: Path, labels: NDArray[Any], values: NDArray[Any]) -> list[str]:
    """Read the class of each nucleus of a label file.

    GeoJSON names a feature's class in ``classification``. Next to a label image ``NAME.png`` lies either
    ``NAME.classes.csv`` with lines LABEL,CLASS, or an image ``NAME.classes.png`` (``.tif``, ``.npy``) of class numbers,
    of which most of a nucleus' pixels that are not 0 decide (the smaller number where two are equal).

    Parameters
    ----------
    path : Path
        The label file.
    labels : (H, W) integer array
        Its label image.
    values : (N,) integer array
        The labels whose classes are wanted.

    Returns
    -------
    list of str
        Names; class numbers are given as digits, and `UNCLASSIFIED` is what has none.

    Raises
    ------
    DataError
        If there is no class file, it can't be read, or it lacks a label.
    """
    if path.name.lower().endswith(GEOJSON_SUFFIXES):
        names = read_class_names(path)
        return [names[int(value) - 1] for value in values]
    file = class_file_of(path)
    if file is None:
        stem = path.name.removesuffix(path.suffix)
        raise DataError(
            f"{path} has no class file: put {stem}.classes.csv (lines LABEL,CLASS) or {stem}.classes.png (an image of "
            "class numbers) next to it"
        )
    if file.suffix.lower() == ".csv":
        return _from_csv(file, values)
    return _from_image(file, labels, values)


def _from_csv(file: Path, values: NDArray[Any]) -> list[str]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as content:
            rows = [(number, row) for number, row in enumerate(csv.reader(content), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} can't be read as CSV: {error}") from error
    found: dict[int, str] = {}
    for number, row in rows:
        if number == rows[0][0] and row[0].strip().lower() in _HEADERS:
            continue
        try:
            label, name = int(row[0]), row[1].strip()
        except (ValueError, IndexError):
            raise DataError(f"line {number} of {file} is not LABEL,CLASS") from None
        if found.setdefault(label, name) != name:
            raise DataError(f"{file} gives label {label} two classes, {found[label]} and {name}")
    missing = [int(value) for value in values if int(value) not in found]
    if missing:
        raise DataError(f"{file} has no class for label {missing[0]}")
    return [found[int(value)] for value in values]


def _from_image(file: Path, labels: NDArray[Any], values: NDArray[Any]) -> list[str]:
    classes = read_label_image(file)
    if classes.shape != labels.shape:
        raise DataError(f"{file} is {classes.shape} px, its label image {labels.shape}: they must be of one size")
    inside = (labels != 0) & (classes != 0)
    which = np.searchsorted(values, labels[inside])
    kinds, choice = np.unique(classes[inside], return_inverse=True)
    votes = np.bincount(which * max(len(kinds), 1) + choice, minlength=len(values) * max(len(kinds), 1))
    votes = votes.reshape(len(values), max(len(kinds), 1))
    return [str(int(kinds[row.argmax()])) if row.any() else UNCLASSIFIED for row in votes]
