"""The plot of a training run: true to the log, whatever is in it."""

from __future__ import annotations

import csv
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclix.engine.training import log as log_module
from nuclix.engine.training.log import COLUMNS, Progress, TrainingLog
from nuclix.engine.training.plot import LOSS_LIMITS, SCORE_LIMITS, points, training_plot
from nuclix.engine.training.validation import ImageScores, Validation

CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(str), st.sampled_from(["", "0", "-1", "1e-9", "nan", "x", "<&"])
)
ROWS = st.lists(st.fixed_dictionaries({name: CELLS for name in COLUMNS}), max_size=6)


def row(step: int, loss: float, found: tuple[float, float, float] | None = None) -> dict[str, str]:
    more = dict(zip(("validation_loss", "aji", "f1"), map(str, found), strict=True)) if found else {}
    return {**dict.fromkeys(COLUMNS, ""), "step": str(step), "loss": str(loss), **more}


@given(ROWS)
@settings(max_examples=20, deadline=None)
def test_any_log_gives_a_well_formed_plot(rows: list[dict[str, str]]) -> None:
    assert ET.fromstring(training_plot(rows)).tag.endswith("svg")


@given(ROWS)
def test_only_finite_values_within_the_limits_are_drawn(rows: list[dict[str, str]]) -> None:
    for name, limits in (("loss", LOSS_LIMITS), ("aji", SCORE_LIMITS)):
        steps, values = points(rows, name, limits)
        assert len(steps) == len(values) and all(math.isfinite(value) for value in (*steps, *values))
        assert all(limits[0] <= value <= limits[1] for value in values)


def test_missing_numbers_leave_no_points() -> None:
    rows = [row(100, 4.0, (3.0, 0.25, 0.75)), row(200, 2.0), row(300, 1.0, (2.5, 0.5, 0.75))]
    assert points(rows, "loss", LOSS_LIMITS) == ([100, 200, 300], [4, 2, 1])
    assert points(rows, "aji", SCORE_LIMITS) == ([100, 300], [0.25, 0.5])
    assert points(rows, "pq", SCORE_LIMITS) == ([], [])


def test_a_validation_updates_the_plot(tmp_path: Path) -> None:
    log, picture = TrainingLog(tmp_path / "training.csv"), tmp_path / "training.svg"
    log.open(0)
    log.row(Progress(50, 100, 0.7), 1.0, 1e-3)
    assert not picture.exists()
    log.row(Progress(100, 100, 0.5, Validation(0.6, ImageScores(0.3, 0.7, 0.2))), 2.0, 1e-3)
    assert ET.fromstring(picture.read_text()).tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training.csv", "training.svg"]
    with (tmp_path / "training.csv").open(newline="") as file:
        assert [entry["step"] for entry in csv.DictReader(file)] == ["50", "100"]


def test_without_matplotlib_there_is_a_log_and_no_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "can_plot", lambda: False)
    log = TrainingLog(tmp_path / "training.csv")
    log.open(0)
    log.row(Progress(100, 100, 0.5, Validation(0.6, ImageScores(0.3, 0.7, 0.2))), 2.0, 1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["training.csv"]
