"""Small CSV tables that say something about each image of a data set: its part, its group, its scale."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from nuclix.engine.errors import DataError

IMAGE = "image"
FORMER_COLUMNS = {"um_per_px": "mpp"}  # accepted for one release


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV with a column image and these; raise `DataError` where one is missing."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = csv.DictReader(file)
            rows = [{FORMER_COLUMNS.get(key, key): value for key, value in row.items()} for row in found]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{path}: can't be read as a CSV: {problem}") from problem
    if not rows or not {IMAGE, *columns} <= set(rows[0]):
        raise DataError(f"{path}: needs the columns {' and '.join((IMAGE, *columns))}, and at least one row")
    return rows


def read_column(path: Path, name: str, images: Sequence[str]) -> dict[str, str]:
    """Return image to its value of a column.

    Parameters
    ----------
    path : Path
        The CSV; rows of other images are ignored.
    name : str
        The column.
    images : sequence of str
        Each must have a row with a value.

    Raises
    ------
    DataError
        If the file can't be read, or the column or the value of an image is missing.
    """
    wanted = set(images)
    found = {row[IMAGE]: row[name] for row in read_rows(path, name) if row[IMAGE] in wanted and row[name]}
    for image in images:
        if image not in found:
            raise DataError(f"{path}: has no {name} for {image}; add a row for it")
    return found
