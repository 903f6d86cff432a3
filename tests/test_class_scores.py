"""Scores by class against their definitions, and the files that classes are read from."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nuclix.engine.cli import main
from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.centres import centres_of, pair_centres
from nuclix.engine.evaluation.class_files import read_classes
from nuclix.engine.evaluation.class_scores import count_classes, mean_class_quality, score_classes
from nuclix.engine.evaluation.evaluate import evaluate
from nuclix.engine.evaluation.scores import score
from nuclix.ext.overlap import overlap_table

CLASSES = 3


def images(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    labels = [draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 4))) for _ in range(2)]
    kinds = [draw(hnp.arrays(np.int64, 5, elements=st.integers(0, CLASSES - 1))) for _ in range(2)]
    return labels[0], labels[1], kinds[0], kinds[1]


def only(labels: np.ndarray, kinds: np.ndarray, kind: int) -> np.ndarray:
    return np.where((labels > 0) & (kinds[labels] == kind), labels, 0)


def counted(truth: np.ndarray, prediction: np.ndarray, of_truth: np.ndarray, of_prediction: np.ndarray):
    table = overlap_table(truth, prediction)
    pairs = pair_centres(centres_of(truth, table.truth_labels), centres_of(prediction, table.prediction_labels), 2.0)
    kinds = of_truth[table.truth_labels], of_prediction[table.prediction_labels]
    return count_classes(table, *kinds, CLASSES, pairs)


@given(st.data())
def test_a_class_has_the_panoptic_quality_of_its_nuclei_alone(data) -> None:
    given_images = [images(data.draw) for _ in range(data.draw(st.integers(1, 3)))]
    found = score_classes([counted(*item) for item in given_images], ["a", "b", "c"])
    for kind in range(CLASSES):
        alone = [(only(t, a, kind), only(p, b, kind)) for t, p, a, b in given_images]
        values = [score(t, p).pq for t, p in alone if t.any()]
        if not values:
            assert math.isnan(found.pq[kind])
            assert found.nuclei[kind] == 0
            continue
        assert found.pq[kind] == pytest.approx(np.mean(values))
        pairs = [overlap_table(t, p) for t, p in alone]
        hits = [table.iou[table.iou > 0.5] for table in pairs]
        sizes = sum(len(table.truth_labels) + len(table.prediction_labels) for table in pairs)
        assert found.pq_plus[kind] == pytest.approx(2 * sum(hit.sum() for hit in hits) / sizes)
        assert found.f1[kind] == pytest.approx(2 * sum(len(hit) for hit in hits) / sizes)


@given(st.data())
def test_mpq_is_the_mean_over_images_of_the_classes_that_each_holds(data) -> None:
    """PanNuke's program: the mean over the classes that an image's truth holds, then over images."""
    given_images = [images(data.draw) for _ in range(data.draw(st.integers(1, 3)))]
    found = score_classes([counted(*item) for item in given_images], ["a", "b", "c"])
    means = []
    for truth, prediction, of_truth, of_prediction in given_images:
        alone = [(only(truth, of_truth, kind), only(prediction, of_prediction, kind)) for kind in range(CLASSES)]
        values = [score(t, p).pq for t, p in alone if t.any()]
        means.append(np.mean(values) if values else math.nan)
    np.testing.assert_allclose(found.image_pq, means)
    held = [value for value in means if not math.isnan(value)]
    assert found.mpq == pytest.approx(np.mean(held) if held else 0)
    names = [str(k) for k in range(len(means))]
    groups = {name: "ab"[k % 2] for k, name in enumerate(names)}
    for group, value in mean_class_quality(found, names, groups).items():
        mine = [means[k] for k, name in enumerate(names) if groups[name] == group and not math.isnan(means[k])]
        assert value == pytest.approx(np.mean(mine))
    assert mean_class_quality(found, names, {}) == {}


@given(st.data())
def test_classified_f1_counts_pairs_as_hovernets_program_does(data) -> None:
    """Pairs by centre; of class c, true positives and errors of class (twice) and of detection, no true negatives."""
    truth, prediction, of_truth, of_prediction = images(data.draw)
    found = score_classes([counted(truth, prediction, of_truth, of_prediction)], ["a", "b", "c"])
    table = overlap_table(truth, prediction)
    ends = centres_of(truth, table.truth_labels), centres_of(prediction, table.prediction_labels)
    rows, cols = pair_centres(*ends, 2.0)
    pairs = [
        (of_truth[table.truth_labels[i]], of_prediction[table.prediction_labels[j]])
        for i, j in zip(rows, cols, strict=True)
    ]
    lone = [of_truth[v] for k, v in enumerate(table.truth_labels) if k not in rows]
    lone += [of_prediction[v] for k, v in enumerate(table.prediction_labels) if k not in cols]
    for kind in range(CLASSES):
        right = pairs.count((kind, kind))
        wrong = sum((a == kind) != (b == kind) for a, b in pairs)
        below = 2 * right + 2 * wrong + lone.count(kind)
        expected = 2 * right / below if below else math.nan
        assert found.f1_classified[kind] == pytest.approx(expected, nan_ok=True)
    total = 2 * len(pairs) + len(lone)
    assert found.f1_detected == pytest.approx(2 * len(pairs) / total if total else 0)


places = hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(2)), elements=st.integers(0, 12).map(float))


@given(places, places)
def test_as_many_centres_as_can_be_are_paired_at_the_least_distance(truth: np.ndarray, prediction: np.ndarray) -> None:
    rows, cols = pair_centres(truth, prediction, 3.0)
    assert len(set(rows)) == len(rows) == len(set(cols)) == len(cols)
    away = np.hypot(*(truth[rows] - prediction[cols]).T)
    assert (away <= 3).all()
    best = (0, 0.0)
    cost = np.hypot(*(truth[:, None] - prediction[None]).transpose(2, 0, 1))
    short, long = (len(truth), len(prediction)) if len(truth) <= len(prediction) else (len(prediction), len(truth))
    cost = cost if len(truth) <= len(prediction) else cost.T
    for chosen in itertools.permutations(range(long), short):
        near = [cost[k, c] for k, c in enumerate(chosen) if cost[k, c] <= 3]
        best = min(best, (-len(near), sum(near)))
    assert (-len(rows), away.sum()) == (best[0], pytest.approx(best[1]))


def test_the_centre_of_a_label_is_its_centre_of_mass() -> None:
    labels = np.array([[0, 3, 3], [7, 0, 3]])
    np.testing.assert_allclose(centres_of(labels, np.array([3, 7])), [[1 / 3, 5 / 3], [1, 0]])


def test_everything_right_scores_one() -> None:
    labels = np.array([[1, 1, 0, 2, 2, 0, 3]])
    kinds = np.array([0, 0, 1, 1, 0])
    found = score_classes([counted(labels, labels, kinds, kinds)], ["a", "b", "c"])
    assert (found.mpq, found.mpq_plus, found.mean_f1, found.accuracy) == (1, 1, 1, 1)
    assert found.confusion.tolist() == [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


# ---- files ----


def write_case(folder: Path) -> tuple[Path, Path]:
    """Truth as PNG with a CSV of classes, a prediction as PNG with an image of class numbers."""
    truth, prediction = folder / "truth", folder / "prediction"
    for path in (truth, prediction):
        path.mkdir(parents=True)
    labels = np.zeros((20, 30), np.uint16)
    labels[2:8, 2:8], labels[2:8, 12:18], labels[12:18, 2:8] = 1, 5, 9
    other = labels.copy()
    other[labels == 9] = 0
    Image.fromarray(labels).save(truth / "a.png")
    Image.fromarray(other).save(prediction / "a.png")
    (truth / "a.classes.csv").write_text("label,class\n1,1\n5,2\n9,2\n")
    kinds = np.zeros(labels.shape, np.uint8)
    kinds[labels == 1], kinds[labels == 5] = 1, 1
    kinds[2:4, 2:8] = 2
    Image.fromarray(kinds).save(prediction / "a.classes.png")
    return truth, prediction


def test_evaluate_scores_classes_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, prediction = write_case(tmp_path)
    found = evaluate(prediction, truth, classes=True).classes
    assert found is not None
    assert found.names == ("1", "2")
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert found.pq.tolist() == pytest.approx([2 / 3, 0])
    target = tmp_path / "scores.json"
    assert main(["evaluate", str(prediction), str(truth), "--classes", "--json", str(target)]) == 0
    assert "mPQ" in capsys.readouterr().out
    document = json.loads(target.read_text())["by_class"]
    assert document["mpq"] == pytest.approx(1 / 3)
    assert document["classes"]["2"]["nuclei"] == 2
    assert evaluate(prediction, truth).classes is None


def test_evaluate_reads_the_classes_of_geojson(tmp_path: Path) -> None:
    def feature(left: int, kind: object) -> dict:
        corners = [[left, 2], [left + 6, 2], [left + 6, 8], [left, 8], [left, 2]]
        properties = {"objectType": "detection"} | ({} if kind is None else {"classification": kind})
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": properties,
        }

    for name, kinds in (
        ("truth", [{"name": "Tumour"}, "Stroma", None]),
        ("found", [{"name": "Tumour"}, {"names": ["Stroma"]}, {"name": "Stroma"}]),
    ):
        features = [feature(2 + 10 * k, kind) for k, kind in enumerate(kinds)]
        (tmp_path / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = evaluate(tmp_path / "found.geojson", tmp_path / "truth.geojson", classes=True).classes
    assert found is not None
    assert found.names == ("(none)", "Stroma", "Tumour")
    assert found.confusion.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,a\n5,b\n", "no class for label 9"),
        ("1,a\n5\n9,b\n", "line 2"),
        ("1,a\nx,b\n9,b\n", "line 2"),
        ("1,a\n1,b\n5,b\n9,b\n", "two classes"),
        (None, "has no class file"),
    ],
)
def test_bad_class_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    truth, _ = write_case(tmp_path)
    file = truth / "a.classes.csv"
    file.unlink() if text is None else file.write_text(text)
    labels = np.asarray(Image.open(truth / "a.png"))
    with pytest.raises(DataError, match=message) as caught:
        read_classes(truth / "a.png", labels, np.array([1, 5, 9]))
    assert "a." in str(caught.value)


def test_a_class_image_of_another_size_is_refused(tmp_path: Path) -> None:
    _, prediction = write_case(tmp_path)
    labels = np.asarray(Image.open(prediction / "a.png"))
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(prediction / "a.classes.png")
    with pytest.raises(DataError, match="one size"):
        read_classes(prediction / "a.png", labels, np.array([1, 5]))
