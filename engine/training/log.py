"""The training's log: one CSV row every few steps, scores where there was a validation, and a picture of it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.files import replace_file
from nuclix.engine.training.plot import can_plot, training_plot

if TYPE_CHECKING:
    from nuclix.engine.training.validation import Validation

COLUMNS = ("step", "seconds", "rate", "loss", "validation_loss", "aji", "f1", "pq")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training run: the mean loss since the last word, and a validation if there was one."""

    step: int
    steps: int
    loss: float
    validation: Validation | None = None


class TrainingLog:
    """A CSV that rows are appended to, and an SVG of the same name that every validation redraws.

    Parameters
    ----------
    path : Path
        The CSV.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, step: int) -> None:
        """Begin the file, or drop the rows after `step` that a killed training had written."""
        rows: list[dict[str, str]] = []
        if step > 0 and self._path.exists():
            rows = [row for row in self._rows() if row["step"].isdigit() and int(row["step"]) <= step]
        with self._path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def row(self, progress: Progress, seconds: float, rate: float) -> None:
        """Append a row; after a validation update the plot, if matplotlib is installed.

        Parameters
        ----------
        progress : Progress
            Step, loss and perhaps scores.
        seconds : float
            Time spent so far.
        rate : float
            The learning rate.
        """
        values = [progress.step, f"{seconds:.1f}", f"{rate:.3g}", f"{progress.loss:.6g}"]
        found = progress.validation
        if found is not None:
            numbers = (found.loss, found.scores.aji, found.scores.f1, found.scores.pq)
            values += [f"{number:.5f}" for number in numbers]
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(values + [""] * (len(COLUMNS) - len(values)))
        if found is not None and can_plot():
            replace_file(self._path.with_suffix(".svg"), training_plot(self._rows()))

    def _rows(self) -> list[dict[str, str]]:
        with self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
