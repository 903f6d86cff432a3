"""The picture of a training: well-formed, self-contained, true to the log, whatever stands in it."""

from __future__ import annotations

import csv
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclix.engine.training.log import COLUMNS, Progress, TrainingLog
from nuclix.engine.training.plot import HEIGHT, LEFT, LOSS, RIGHT, SCORES, WIDTH, training_plot
from nuclix.engine.training.validation import ImageScores, Validation

SPACE = "{http://www.w3.org/2000/svg}"
CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(str), st.sampled_from(["", "0", "-1", "1e-9", "nan", "x", "<&"])
)
ROWS = st.lists(st.fixed_dictionaries({name: CELLS for name in COLUMNS}), max_size=6)


def curves(text: str) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for line in ET.fromstring(text).iter(f"{SPACE}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        found[line.get("class", "").removeprefix("curve ")] = points
    return found  # type: ignore[return-value]


def row(step: int, loss: float, found: tuple[float, float, float] | None = None) -> dict[str, str]:
    more = dict(zip(("validation_loss", "aji", "f1"), map(str, found), strict=True)) if found else {}
    return {**dict.fromkeys(COLUMNS, ""), "step": str(step), "loss": str(loss), **more}


@given(ROWS)
def test_any_log_gives_a_picture_with_everything_inside(rows: list[dict[str, str]]) -> None:
    text = training_plot(rows)
    for points in curves(text).values():
        assert all(LEFT <= x <= RIGHT and LOSS[0] <= y <= SCORES[1] for x, y in points)
    for part in ET.fromstring(text).iter(f"{SPACE}text"):
        assert 0 <= float(part.get("x", "-1")) <= WIDTH
        assert 0 <= float(part.get("y", "-1")) <= HEIGHT


def test_nothing_comes_from_elsewhere() -> None:
    text = training_plot([row(50, 0.5, (0.4, 0.3, 0.8))])
    assert text.startswith("<svg ") and 'xmlns="http://www.w3.org/2000/svg"' in text
    assert text.count("http") == 1
    assert "href" not in text and "script" not in text and "url(" not in text and "@import" not in text


def test_points_lie_where_the_numbers_say() -> None:
    """Steps are linear; the loss is logarithmic, so 4, 2, 1 are equally far apart; missing numbers leave no points."""
    drawn = curves(training_plot([row(100, 4.0, (3.0, 0.25, 0.75)), row(200, 2.0), row(300, 1.0, (2.5, 0.5, 0.75))]))
    xs, ys = zip(*drawn["loss"], strict=True)
    assert np.diff(xs) == pytest.approx([(RIGHT - LEFT) / 3] * 2, abs=0.11)
    assert np.diff(ys)[0] == pytest.approx(np.diff(ys)[1], abs=0.11) and ys[0] < ys[1]
    assert [x for x, _ in drawn["aji"]] == [xs[0], xs[2]]
    assert drawn["aji"][0][1] > drawn["aji"][1][1] > drawn["f1"][1][1] == drawn["f1"][0][1]
    assert set(drawn) == {"loss", "validation_loss", "aji", "f1"}


def test_ticks_of_the_loss_are_true() -> None:
    """A tick's label is the loss at which a curve would cross its line."""
    root = ET.fromstring(training_plot([row(10, 10.0), row(20, 0.05)]))
    ends = curves(ET.tostring(root, encoding="unicode"))["loss"]
    ticks = {float(part.text or ""): float(part.get("y", "")) - 4 for part in root.iter(f"{SPACE}text")
             if part.get("class") == "end" and float(part.get("y", "")) < LOSS[1] + 4}  # fmt: skip
    assert {0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0} <= set(ticks)
    for value, y in ticks.items():
        share = math.log10(value / 0.05) / math.log10(10 / 0.05)
        assert y == pytest.approx(ends[1][1] + share * (ends[0][1] - ends[1][1]), abs=0.2)


def test_a_validation_redraws_the_picture_beside_the_log(tmp_path: Path) -> None:
    log, picture = TrainingLog(tmp_path / "training.csv"), tmp_path / "training.svg"
    log.open(0)
    log.row(Progress(50, 100, 0.7), 1.0, 1e-3)
    assert not picture.exists()
    log.row(Progress(100, 100, 0.5, Validation(0.6, ImageScores(0.3, 0.7, 0.2))), 2.0, 1e-3)
    drawn = curves(picture.read_text())
    assert {name: len(points) for name, points in drawn.items()} == {
        "loss": 2, "validation_loss": 1, "aji": 1, "f1": 1, "pq": 1,
    }  # fmt: skip
    assert "AJI 0.3" in picture.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training.csv", "training.svg"]
    with (tmp_path / "training.csv").open(newline="") as file:
        assert [entry["step"] for entry in csv.DictReader(file)] == ["50", "100"]
