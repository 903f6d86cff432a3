"""Run an experiment: one training run per network, seed and fold, each scored on the fold that it did not see.

A run that is finished is read, not repeated; one that was killed goes on from its checkpoint, and so does one that is
to be scored with other parameters. The scores of every parameter set on every held-out image are kept, so that
parameters can be chosen on other folds than they are judged on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.files import replace_file
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.training.dataset import Dataset, load_images
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.experiment_file import (
    Experiment,
    Network,
    postprocessor_kind,
    recipe_of,
    schedule_of,
)
from nuclix.engine.training.loop import Place, kept, train
from nuclix.engine.training.selection import predict
from nuclix.engine.training.splits import deal_folds, read_folds, read_groups
from nuclix.engine.training.validation import ImageScores, label, score_image

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Annotated, Recipe
    from nuclix.engine.training.log import Progress

RECORD = "scores.json"
CELLS = "runs"


@dataclass(frozen=True, slots=True)
class Cell:
    """One training run: a network, a seed and the fold that is held out."""

    network: Network
    seed: int
    fold: int

    def folder(self, out: Path) -> Path:
        """Return where its checkpoint, log and scores are."""
        return out / CELLS / self.network.name / f"seed-{self.seed}-fold-{self.fold}"


@dataclass(frozen=True, slots=True)
class WayScores:
    """Scores of one way of splitting in one cell.

    Attributes
    ----------
    parameters : tuple of mapping
        The post-processor's parameter sets.
    scores : mapping of str to tuple of ImageScores
        Held-out image to its scores with each of `parameters`.
    """

    parameters: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, tuple[ImageScores, ...]]


@dataclass(frozen=True, slots=True)
class CellResult:
    """A finished cell.

    Attributes
    ----------
    cell : Cell
        Which.
    ways : mapping of str to WayScores
        By the name of the way of splitting.
    seconds : float
        Of training.
    """

    cell: Cell
    ways: Mapping[str, WayScores]
    seconds: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and on what an experiment runs.

    Attributes
    ----------
    path : Path
        The experiment's file.
    data, out : Path
        Annotated images; the folder that takes results.
    device : str
        auto, cpu or cuda.
    """

    path: Path
    data: Path
    out: Path
    device: str = "auto"


def cells(experiment: Experiment, fold_count: int) -> Iterator[Cell]:
    """Yield the runs, such that the networks of a seed and fold follow each other and partial results compare."""
    for seed in experiment.seeds:
        for fold in range(1, fold_count + 1):
            for network in experiment.networks:
                yield Cell(network, seed, fold)


def folds_of(experiment: Experiment, bench: Bench, names: Sequence[str]) -> dict[str, int]:
    """Return image name to fold, from 1: whole groups, dealt or from the experiment's table."""
    folder = bench.path.parent
    groups = read_groups(bench.data, names, folder / experiment.groups_file if experiment.groups_file else None)
    if not experiment.folds_file:
        return deal_folds(groups, experiment.folds)
    return read_folds(folder / experiment.folds_file, names, groups, experiment.folds)


def run_experiment(
    experiment: Experiment,
    bench: Bench,
    shipped: Sequence[Path],
    report: Callable[[Cell, Progress | None], None],
) -> Iterator[CellResult]:
    """Train and score every cell that is not finished, and yield all of them in order.

    Parameters
    ----------
    experiment : Experiment
        What is compared.
    bench : Bench
        Where.
    shipped : sequence of Path
        Tables of known data sets, which may state the images' scales.
    report : callable
        Called with the cell every few steps, and with None before its first.

    Raises
    ------
    UsageError, DataError
        If the data does not fit, or an earlier run in `bench.out` had other settings.
    """
    images = _Images(experiment, bench, shipped)
    for cell in cells(experiment, experiment.folds):
        recipe = recipe_of(cell.network, bench.path)
        dataset = images.held_out(cell.fold, recipe.scale.mpp)
        report(cell, None)
        yield _result(experiment, bench, cell, dataset, lambda progress, cell=cell: report(cell, progress))  # type: ignore[misc]


class _Images:
    """The data set at the scale last asked for, and its folds."""

    def __init__(self, experiment: Experiment, bench: Bench, shipped: Sequence[Path]) -> None:
        self._experiment, self._bench, self._shipped = experiment, bench, shipped
        self._scale = 0.0
        self._items: list[Annotated] = []
        self._fold_of: dict[str, int] = {}

    def held_out(self, fold: int, mpp: float) -> Dataset:
        """Return the images of one fold as validation images and all others as training images."""
        if mpp != self._scale:
            pattern = self._experiment.images
            self._items = load_images(self._bench.data, mpp, self._shipped, lambda name: fnmatchcase(name, pattern))
            if not self._items:
                raise DataError(f"{self._bench.data}: no image matches {pattern!r}")
            self._fold_of = folds_of(self._experiment, self._bench, [item.name for item in self._items])
            self._scale = mpp
        out = tuple(item for item in self._items if self._fold_of[item.name] == fold)
        rest = tuple(item for item in self._items if self._fold_of[item.name] != fold)
        return Dataset(rest, out, f"fold {fold}/{self._experiment.folds}")


def _result(
    experiment: Experiment, bench: Bench, cell: Cell, dataset: Dataset, report: Callable[[Progress], None]
) -> CellResult:
    """Return a cell's result, from its file if it has one."""
    recipe = recipe_of(cell.network, bench.path)
    schedule = schedule_of(experiment, cell.network, recipe, cell.seed, bench.path)
    if schedule.early_stopping > 0:
        raise UsageError(f"{bench.path}, network {cell.network.name}: early stopping would look at the held-out fold")
    folder = cell.folder(bench.out)
    candidates = {way.name: [dict(item) for item in way.candidates(recipe)] for way in cell.network.ways}
    settings = json.loads(
        json.dumps(
            {
                "recipe": repr(recipe),
                "schedule": as_mapping(schedule),
                "train": [item.name for item in dataset.train],
                "out": [item.name for item in dataset.validation],
                "ways": {
                    way.name: [way.postprocessor or recipe.postprocessor, candidates[way.name]]
                    for way in cell.network.ways
                },
            }
        )
    )
    record = folder / RECORD
    if record.exists() and (known := _read(record, cell, settings)) is not None:
        return known
    never = schedule.steps  # nothing is validated in between: the held-out fold has no say in the training run
    place = Place(folder, bench.device, resume=True, validate_every=never)
    state = train(recipe, Dataset(dataset.train, (), dataset.split), schedule, place, report)
    execution = Execution.of(bench.device, schedule.precision)
    ways = _scored(recipe, kept(state, schedule), dataset, execution, cell.network, bench.path)
    content = {
        "settings": settings,
        "seconds": state.seconds,
        "ways": {name: as_mapping(it) for name, it in ways.items()},
    }
    replace_file(record, json.dumps(content, indent=1).encode())
    return CellResult(cell, ways, state.seconds)


def _scored(
    recipe: Recipe, network: torch.nn.Module, dataset: Dataset, execution: Execution, of: Network, path: Path
) -> dict[str, WayScores]:
    """Score a trained network on the held-out images with every parameter set of every way of splitting."""
    images = dataset.validation
    maps = predict(recipe, network, images, execution)
    found = {}
    for way in of.ways:
        parameters = tuple(way.candidates(recipe))
        made = [from_mapping(postprocessor_kind(way, recipe, path), one, way.name) for one in parameters]
        found[way.name] = WayScores(
            parameters,
            {
                item.name: tuple(score_image(item.labels, label(processor, maps_of)) for processor in made)
                for item, maps_of in zip(images, maps, strict=True)
            },
        )
    return found


def _read(record: Path, cell: Cell, settings: Mapping[str, Any]) -> CellResult | None:
    """Return an earlier result; None if the same training is to be scored in other ways.

    Raises
    ------
    DataError
        If the file can't be read, or is of another training.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        before = content["settings"]
        ways = {
            name: WayScores(
                tuple(way["parameters"]),
                {image: tuple(ImageScores(**row) for row in rows) for image, rows in way["scores"].items()},
            )
            for name, way in content["ways"].items()
        }
        seconds = float(content["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"{record}: can't be read: {problem}; delete it to train this run again") from problem
    differing = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
    if differing == ["ways"]:
        return None
    if differing:
        raise DataError(
            f"{record}: was made with other settings ({', '.join(differing)}); restore them, or choose another --out"
        )
    return CellResult(cell, ways, seconds)
