"""Early stopping: it stops where it should, a kill changes nothing, and the best weights are what is used."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blobs import blob_dataset, write_folder
from nuclix.engine.cli import main
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.log import Progress
from nuclix.engine.training.loop import CHECKPOINT, LOG, Place, kept, train
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.state import Best, TrainingState
from nuclix.engine.training.validation import Validation, validate
from nuclix.plugins.recipes.dist import DistRecipe

RECIPE = DistRecipe(n_feat=2, depth=1)
EVERY = 3  # steps between validations
# A rate so high that the validation loss goes up and down.
RESTLESS = Schedule(
    steps=60, batch=1, patch=32, warmup=1, learning_rate=0.1, precision="float32", average=0.0, early_stopping=4,
    decay=1.0,  # a cosine would depend on the number of steps
)  # fmt: skip


class KillError(Exception):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, schedule: Schedule = RESTLESS, resume: bool = False, kill_at: int = 0) -> TrainingState:
    def report(progress: Progress) -> None:
        if progress.step == kill_at:
            raise KillError

    place = Place(folder, "cpu", resume, validate_every=EVERY, checkpoint_seconds=0.0)
    return train(RECIPE, blob_dataset(), schedule, place, report)


def losses(folder: Path) -> list[float]:
    with (folder / LOG).open(newline="") as file:
        return [float(row["validation_loss"]) for row in csv.DictReader(file) if row["validation_loss"]]


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingState, Path]:
    """A training that stopped early, and its folder."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    state = run(folder)
    torch.set_num_threads(before)
    return state, folder


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_best_is_the_first_of_the_lowest(found: list[int]) -> None:
    network = torch.nn.Linear(1, 1)
    best = Best.of(network)
    for number, loss in enumerate(found):
        torch.nn.init.constant_(network.weight, number)
        best.look(float(loss), network)
    first = found.index(min(found))
    assert (best.loss, best.waited) == (min(found), len(found) - 1 - first)
    assert best.network.weight.detach().item() == first  # type: ignore[union-attr]


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    network = torch.nn.Linear(1, 1)
    best = Best.of(network)
    best.look(float("nan"), network)
    assert best.waited == 1 and best.loss == float("inf")


def test_it_stops_after_so_many_looks_without_a_lower_loss(whole: tuple[TrainingState, Path]) -> None:
    state, folder = whole
    seen = losses(folder)
    lowest = seen.index(min(seen))
    assert len(seen) == lowest + 1 + RESTLESS.early_stopping
    assert state.step == EVERY * len(seen) < RESTLESS.steps
    assert state.best.loss == pytest.approx(min(seen), abs=1e-5)  # the log has five digits


def test_the_kept_weights_are_those_of_the_lowest_loss(whole: tuple[TrainingState, Path]) -> None:
    state, _ = whole
    best = kept(state, RESTLESS)
    assert best is state.best.network and not same(best, state.average)
    found: Validation = validate(RECIPE, best, blob_dataset().validation, Execution.of("cpu", "float32"))
    assert found.loss == pytest.approx(state.best.loss, rel=1e-6)
    assert kept(state, dataclasses.replace(RESTLESS, early_stopping=0)) is state.average


def test_without_early_stopping_it_goes_on(whole: tuple[TrainingState, Path], tmp_path: Path) -> None:
    stopped, folder = whole
    on = run(tmp_path, dataclasses.replace(RESTLESS, early_stopping=0, steps=stopped.step + EVERY))
    assert on.step == stopped.step + EVERY
    assert losses(tmp_path)[:-1] == losses(folder)


def test_stopped_or_not_the_first_steps_are_the_same(whole: tuple[TrainingState, Path], tmp_path: Path) -> None:
    stopped, folder = whole
    on = run(tmp_path, dataclasses.replace(RESTLESS, early_stopping=0, steps=stopped.step))
    assert same(on.network, stopped.network) and same(on.average, stopped.average)
    assert losses(tmp_path) == losses(folder)


@pytest.mark.parametrize(
    "looks_before_the_end", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_kill_changes_nothing(whole: tuple[TrainingState, Path], tmp_path: Path, looks_before_the_end: int) -> None:
    """Killed before or after the best look, it stops at the same step with the same weights."""
    state, folder = whole
    with pytest.raises(KillError):
        run(tmp_path, kill_at=state.step - looks_before_the_end * EVERY)
    resumed = run(tmp_path, resume=True)
    assert (resumed.step, resumed.best.loss, resumed.best.waited) == (state.step, state.best.loss, state.best.waited)
    for name in ("network", "average"):
        assert same(getattr(resumed, name), getattr(state, name))
    assert same(resumed.best.network, state.best.network)
    assert losses(tmp_path) == losses(folder)


def test_a_stopped_training_is_not_trained_on(whole: tuple[TrainingState, Path], tmp_path: Path) -> None:
    done, folder = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / CHECKPOINT).read_bytes()
    again = run(tmp_path, resume=True)
    assert again.step == done.step and same(again.best.network, done.best.network)
    assert (tmp_path / CHECKPOINT).read_bytes() == content


def test_the_best_weights_are_exported(tmp_path: Path) -> None:
    """The model file's maps are those of the best weights, not of the last, and its card says how far it went."""
    dataset = blob_dataset()
    data = write_folder(tmp_path / "data", [*dataset.train, *dataset.validation])
    parts = "".join(f"{item.name},train\n" for item in dataset.train)
    (data / "split.csv").write_text(f"image,split\n{parts}v,validation\n")
    out = tmp_path / "model.pt"
    words = (
        f"--steps 60 --batch 1 --patch 32 --warmup 1 --lr 0.1 --average 0 --early-stopping 4 --validate-every {EVERY}"
    )
    more = "--n-feat 2 --set depth=1 --device cpu --threads 1 --precision float32"
    assert main(["train", "dist", "--data", str(data), "--out", str(out), *words.split(), *more.split()]) == 0
    state = torch.load(tmp_path / "model.training" / CHECKPOINT, weights_only=True)
    card = load_model(out).card
    assert card.training["steps done"] == state["step"] < 60
    images = torch.randint(0, 256, (1, 3, card.patch.size, card.patch.size), generator=torch.Generator().manual_seed(0))
    exported = torch.jit.load(str(out))
    with torch.inference_mode():
        found = exported(images.float())
        for name, alike in (("best", True), ("average", False)):
            network = RECIPE.network()
            network.load_state_dict(state[name])
            expected = RECIPE.exported(network).eval()(images.float())
            assert torch.allclose(found, expected, atol=1e-3) == alike
