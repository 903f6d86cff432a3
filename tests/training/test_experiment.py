"""Experiments: parameters never chosen on the images they are judged on, resumption, tables."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuclix.engine.cli import main
from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.training.experiment import Bench, Cell, CellResult, WayScores, folds_of, run_experiment
from nuclix.engine.training.experiment_file import Experiment, Network, read_experiment
from nuclix.engine.training.experiment_plot import write_plot
from nuclix.engine.training.experiment_table import crossfitted, markdown, summaries
from nuclix.engine.training.validation import ImageScores

TOML = """
title = "Distance or probability"
folds = 2
seeds = [0, 1]
baseline = "distance, threshold"
[schedule]
steps = 3
batch = 1
patch = 32
augmentation = "none"
[[networks]]
name = "distance"
recipe = "dist"
set = {n_feat = 2, depth = 1}
[[networks.splittings]]
name = "distance, threshold"
postprocessor = "components"
grid = {threshold = [0.3, 0.5]}
[[networks.splittings]]
name = "distance, watershed"
grid = {p1 = [0.5, 1.0], p2 = [0.4], min_area = [0]}
[[networks]]
name = "probability"
recipe = "probability"
set = {n_feat = 2, depth = 1}
schedule = {steps = 2}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index in range(4):
        labels = np.zeros((48, 48), np.uint8)
        for number in range(1, 5):
            row, col = rng.integers(4, 36, 2)
            labels[row : row + 8, col : col + 8] = number
        pixels = np.where(labels[..., None] > 0, 90, 220) + rng.integers(-20, 20, (48, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / "images" / f"i{index}.png")
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"i{index}.png")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(TOML)
    return path


def fake(experiment: Experiment, aji: dict[tuple[int, int, str], list[float]]) -> list[CellResult]:
    """Results of one network with one way, from (seed, fold, image) to the AJI with each parameter set."""
    network = experiment.networks[0]
    cells = sorted({key[:2] for key in aji})
    out = []
    for seed, fold in cells:
        scores = {
            image: tuple(ImageScores(value, value, value) for value in values)
            for (s, f, image), values in aji.items()
            if (s, f) == (seed, fold)
        }
        count = len(next(iter(scores.values())))
        way = WayScores(tuple({"p": index} for index in range(count)), scores)
        out.append(CellResult(Cell(network, seed, fold), {network.name: way}, 10.0))
    return out


def test_parameters_are_chosen_on_the_other_folds() -> None:
    experiment = Experiment("t", (Network("a", "dist"),), folds=2, seeds=(0,))
    # Parameter 0 is best on fold 1, parameter 1 on fold 2: each fold must get what is best for the other.
    results = fake(experiment, {(0, 1, "x"): [0.9, 0.1], (0, 2, "y"): [0.2, 0.8]})
    chosen = {row.image: (row.parameters["p"], row.scores.aji) for row in crossfitted(results)}
    assert chosen == {"x": (1, 0.1), "y": (0, 0.2)}


def test_an_images_own_scores_do_not_change_its_parameters() -> None:
    experiment = Experiment("t", (Network("a", "dist"),), folds=3, seeds=(0,))
    rng = np.random.default_rng(3)
    table = {(0, fold, f"i{fold}"): rng.random(5).tolist() for fold in (1, 2, 3)}
    before = {row.image: row.parameters for row in crossfitted(fake(experiment, table))}
    for fold in (1, 2, 3):
        changed = {**table, (0, fold, f"i{fold}"): rng.random(5).tolist()}
        after = {row.image: row.parameters for row in crossfitted(fake(experiment, changed))}
        assert after[f"i{fold}"] == before[f"i{fold}"]


def test_summary_agrees_with_numpy_and_scipy() -> None:
    from scipy.stats import wilcoxon

    rng = np.random.default_rng(1)
    experiment = Experiment("t", (Network("a", "dist"), Network("b", "dist")), folds=2, seeds=(0, 1))
    scores = {(seed, 1 + index % 2, f"i{index:02}"): [rng.random()] for seed in (0, 1) for index in range(10)}
    first = fake(experiment, scores)
    better = {key: [value[0] + 0.02 + 0.05 * rng.random()] for key, value in scores.items()}
    second = [
        CellResult(replace(item.cell, network=experiment.networks[1]), {"b": item.ways["a"]}, 20.0)
        for item in fake(experiment, better)
    ]
    one, two = summaries(experiment, [*first, *second])
    means = np.array([[scores[seed, 1 + index % 2, f"i{index:02}"][0] for index in range(10)] for seed in (0, 1)])
    assert one.aji == pytest.approx(means.mean()) and one.images == 10 and one.seeds == 2
    assert one.aji_seed_sd == pytest.approx(means.mean(1).std(ddof=1))
    assert one.aji_se == pytest.approx(means.mean(0).std(ddof=1) / np.sqrt(10))
    others = np.array([[better[seed, 1 + index % 2, f"i{index:02}"][0] for index in range(10)] for seed in (0, 1)])
    difference = (others - means).mean(0)
    assert two.difference == pytest.approx(difference.mean()) and np.isnan(one.difference)
    assert two.p_value == pytest.approx(wilcoxon(difference, alternative="greater", method="exact").pvalue)
    assert "| b | 10 | 2 |" in markdown(experiment, [one, two])


def test_command_trains_every_cell_once_and_resumes(
    data: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", str(file), "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--list"]) == 0
    assert capsys.readouterr().out.count("to do") == 8
    assert main(command) == 0
    first = (tmp_path / "out" / "scores.csv").read_bytes()
    rows = list(csv.DictReader(first.decode().splitlines()))
    assert len(rows) == 3 * 2 * 4  # ways, seeds, images
    records = sorted((tmp_path / "out").rglob("scores.json"))
    stamps = [path.stat().st_mtime_ns for path in records]
    records[3].unlink()  # as if killed before this one: its checkpoint is at the last step, so it is only scored
    assert main(command) == 0
    assert (tmp_path / "out" / "scores.csv").read_bytes() == first
    kept = [path.stat().st_mtime_ns for index, path in enumerate(records) if index != 3]
    assert kept == [stamp for index, stamp in enumerate(stamps) if index != 3]
    assert "distance, watershed" in (tmp_path / "out" / "summary.md").read_text()


def test_plot_has_a_line_per_way(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    experiment = Experiment("A title", (Network("a", "dist"),), folds=2, seeds=(0,))
    results = fake(experiment, {(0, 1, "x"): [0.9, 0.1], (0, 2, "y"): [0.2, 0.8]})
    path = write_plot(experiment, summaries(experiment, results), crossfitted(results), tmp_path)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 500
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn


def test_results_of_other_settings_are_refused(data: Path, file: Path, tmp_path: Path) -> None:
    bench = Bench(file, data, tmp_path / "out", "cpu")
    next(run_experiment(read_experiment(file), bench, (), lambda cell, progress: None))
    file.write_text(TOML.replace("steps = 3", "steps = 4"))
    with pytest.raises(DataError, match=r"scores\.json: was made with other settings \(schedule\)"):
        next(run_experiment(read_experiment(file), bench, (), lambda cell, progress: None))
    record = next((tmp_path / "out").rglob("scores.json"))
    record.write_text(json.dumps({"settings": {}}))
    with pytest.raises(DataError, match="delete it to train this run again"):
        next(run_experiment(read_experiment(file), bench, (), lambda cell, progress: None))


def test_other_parameters_are_scored_without_training_again(data: Path, file: Path, tmp_path: Path) -> None:
    def first(out: Path) -> tuple[CellResult, bytes]:
        result = next(run_experiment(read_experiment(file), Bench(file, data, out, "cpu"), (), lambda *_: None))
        return result, next(out.rglob("checkpoint.pt")).read_bytes()

    before, checkpoint = first(tmp_path / "out")
    file.write_text(TOML.replace("p1 = [0.5, 1.0]", "p1 = [0.5, 2.0, 4.0]"))
    after, same = first(tmp_path / "out")
    fresh, _ = first(tmp_path / "fresh")
    assert same == checkpoint and after.seconds == before.seconds
    assert [dict(item)["p1"] for item in after.ways["distance, watershed"].parameters] == [0.5, 2.0, 4.0]
    assert after.ways == fresh.ways


def test_folds_respect_groups(data: Path, tmp_path: Path) -> None:
    (data / "groups.csv").write_text("image,group\ni0,a\ni1,a\ni2,b\ni3,b\n")
    experiment = Experiment("t", (Network("a", "dist"),), folds=2)
    folds = folds_of(experiment, Bench(tmp_path / "x.toml", data, tmp_path), ["i0", "i1", "i2", "i3"])
    assert folds["i0"] == folds["i1"] != folds["i2"] == folds["i3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "dist"', 'recipe = "dits"', "dits"),
        ("n_feat = 2, depth = 1", "n_feet = 2", "n_feet"),
        ("steps = 3", "stops = 3", "stops"),
        ("steps = 3", "seed = 3", "leave seed out"),
        ("threshold = [0.3, 0.5]", "threshold = 0.3", "list of one or more"),
        ("threshold = [0.3, 0.5]", "threshold = [3.5]", "threshold"),
        ("threshold = [0.3, 0.5]", "treshold = [0.5]", "treshold"),
        ('postprocessor = "components"', 'postprocessor = "markers"', "map"),
        ('baseline = "distance, threshold"', 'baseline = "distance"', "baseline must be one of"),
        ('name = "probability"', 'name = "distance"', "two networks"),
        ('name = "distance, watershed"', 'name = "distance, threshold"', "two splittings"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seed is there twice"),
        ("folds = 2", "folds = 1", "at least 2"),
        ("steps = 3", "steps = ", "TOML"),
        ('name = "probability"', 'name = "../x"', "can't name a folder"),
    ],
)
def test_a_bad_file_is_named(file: Path, old: str, new: str, message: str) -> None:
    assert old in TOML
    file.write_text(TOML.replace(old, new, 1))
    with pytest.raises(UsageError, match=rf"experiment\.toml.*{message}"):
        read_experiment(file)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "docs" / "experiments").glob("*.toml")), ids=lambda path: path.stem
)
def test_experiments_of_the_documentation_are_valid(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.folds >= 2 and len(experiment.seeds) >= 2
    assert not experiment.folds_file or (path.parent / experiment.folds_file).is_file()
