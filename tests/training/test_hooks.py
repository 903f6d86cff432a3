"""What a recipe may define: auxiliary maps, a loss, a sampler, a schedule. Each is used where it should be."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blobs import blob_dataset, blobs
from nuclix.engine.cli import train as command
from nuclix.engine.errors import UsageError
from nuclix.engine.training.augmentation import NONE, Augmentation
from nuclix.engine.training.contracts import (
    Annotated,
    AuxiliaryMaps,
    BatchShape,
    BatchSource,
    CustomLoss,
    CustomSampler,
    CustomSchedule,
)
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.loop import Place, train
from nuclix.engine.training.sampler import Sampler
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.validation import validate
from nuclix.plugins.recipes.dist import DistRecipe
from nuclix.testing import recipe as conformance

SHORT = Schedule(steps=3, batch=2, patch=32, warmup=1, precision="float32", augmentation=NONE)


@dataclass(frozen=True)
class Mirrored(DistRecipe):
    """Its auxiliary maps are the labels and the red channel; its target is where the first is not the labels."""

    n_feat: int = 2
    depth: int = 1

    def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.stack([labels, image[..., 0]]).astype(np.float32)

    def targets_with_auxiliary(self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.abs(labels - auxiliary[:1]) + 1000 * np.isnan(auxiliary[1:])


def test_plain_recipes_have_no_hooks() -> None:
    for hook in (AuxiliaryMaps, CustomLoss, CustomSampler, CustomSchedule):
        assert not isinstance(DistRecipe(), hook)
    assert isinstance(Mirrored(), AuxiliaryMaps)


def test_a_guide_is_bent_and_turned_exactly_as_the_labels_are() -> None:
    """Over every variation there is, streaks and background too, auxiliary maps that are the labels stay the labels."""
    views = Augmentation(background=0.2, streaks=0.2, rotation=1.0, elastic=3.0)
    sampler = Sampler(Mirrored(), [blobs("a"), blobs("b", seed=2)], views, BatchShape(8, 48), seed=1)
    for step in range(4):
        assert not sampler.batch(step)[1].any()


def test_a_guide_is_made_once_an_image_before_the_training() -> None:
    seen: list[tuple[int, ...]] = []

    class Counting(Mirrored):
        def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
            seen.append(image.shape)
            return super().auxiliary_maps(image, labels)

    sampler = Sampler(Counting(), [blobs("a"), blobs("b")], Augmentation(), BatchShape(2, 32), 0)
    sampler.batch(0)
    sampler.batch(1)
    assert seen == [(96, 112, 3)] * 2, "from the image as it is"


def test_patches_without_nuclei_have_auxiliary_maps_of_zeros() -> None:
    class Sum(Mirrored):
        def targets_with_auxiliary(
            self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]
        ) -> NDArray[np.float32]:
            return auxiliary[1:]

    sampler = Sampler(Sum(), [blobs("a")], Augmentation(background=1.0), BatchShape(3, 32), 0)
    assert not sampler.batch(0)[1].any()


def test_validation_uses_the_guided_targets() -> None:
    class Told(Mirrored):
        """Learns what the auxiliary maps hold: a number, everywhere."""

        def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
            return np.full((1, *labels.shape), image.shape[0], np.float32)

        def targets_with_auxiliary(
            self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]
        ) -> NDArray[np.float32]:
            return auxiliary

    network = torch.nn.Conv2d(3, 1, 1)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    found = validate(Told(), network, [blobs("v", (64, 40))], Execution.of("cpu", "float32"))
    assert found.loss == pytest.approx(64.0**2)


@dataclass(frozen=True)
class Weighed(DistRecipe):
    """Its objective is the sum of its biases; it notes what it is given."""

    n_feat: int = 2
    depth: int = 1
    seen: list[Any] = field(default_factory=list)

    def objective(self) -> Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
        def objective(network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            self.seen.append((network.training, images.shape, float(images.max()), targets.shape))
            return 7 + sum((item.sum() for item in network.parameters() if item.ndim == 1), torch.zeros(()))

        return objective


def test_an_objective_is_followed_and_the_loss_validates(tmp_path: Path) -> None:
    recipe = Weighed()
    state = train(recipe, blob_dataset(), SHORT, Place(tmp_path, "cpu"), lambda _: None)
    assert [seen[:2] for seen in recipe.seen] == [(True, (2, 3, 32, 32))] * 3
    assert all(seen[2] <= 0 and seen[3] == (2, 1, 32, 32) for seen in recipe.seen), "images come normalised"
    torch.manual_seed(0)
    before = recipe.network()
    pairs = list(zip(before.parameters(), state.network.parameters(), strict=True))
    assert all(bool((after < first).all()) for first, after in pairs if first.ndim == 1), "biases and norms fall"
    rows = (tmp_path / "training.csv").read_text().splitlines()
    values = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(values["loss"]) != pytest.approx(float(values["validation_loss"]), rel=0.01)


@dataclass(frozen=True)
class Ramp:
    """Batches whose grey level is the step."""

    shape: BatchShape
    steps: list[int]

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.steps.append(step)
        size = (self.shape.batch, 3, self.shape.patch, self.shape.patch)
        return torch.full(size, float(step)), torch.zeros(self.shape.batch, 1, self.shape.patch, self.shape.patch)


@dataclass(frozen=True)
class Supplied(DistRecipe):
    n_feat: int = 2
    depth: int = 1
    asked: list[Any] = field(default_factory=list, compare=False, repr=False)
    steps: list[int] = field(default_factory=list, compare=False, repr=False)

    def batches(self, images: Sequence[Annotated], shape: BatchShape, seed: int) -> BatchSource:
        self.asked.append(([item.name for item in images], shape, seed))
        return Ramp(shape, self.steps)


def test_a_recipe_may_draw_its_batches_itself_and_a_resumed_training_goes_on_with_them(tmp_path: Path) -> None:
    recipe = Supplied()
    schedule = Schedule(steps=4, batch=3, patch=16, seed=8, warmup=1, precision="float32")

    class KillError(Exception):
        """Stands for a kill."""

    def kill(progress: Any) -> None:
        if progress.step == 2:
            raise KillError

    place = Place(tmp_path, "cpu", validate_every=1, checkpoint_seconds=0.0)
    with pytest.raises(KillError):
        train(recipe, blob_dataset(), schedule, place, kill)
    assert recipe.asked == [(["t0", "t1", "t2"], BatchShape(3, 16), 8)]
    assert recipe.steps == [0, 1]
    resumed = Place(tmp_path, "cpu", resume=True, validate_every=1, checkpoint_seconds=0.0)
    train(recipe, blob_dataset(), schedule, resumed, lambda _: None)
    assert recipe.steps == [0, 1, 1, 2, 3], "step 1 was killed before its checkpoint"


@dataclass(frozen=True)
class Planned(DistRecipe):
    plan: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self) -> Mapping[str, Any]:
        return self.plan


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "planned", "--data", "d", "--out", "o.pt", *words])


PLAN = {"steps": 77, "learning_rate": 0.5, "augmentation": {"elastic": 9.0, "background": 0.5}}


def test_options_go_before_the_recipes_schedule_and_that_before_the_usual_one() -> None:
    schedule = command._schedule(parsed("--lr", "0.25", "--augment", "background=0.1"), Planned(plan=PLAN))
    assert (schedule.steps, schedule.learning_rate, schedule.batch) == (77, 0.25, Schedule().batch)
    views = schedule.augmentation
    assert (views.elastic, views.background, views.blur) == (9.0, 0.1, Augmentation().blur)
    assert command._schedule(parsed(), Planned()) == command._schedule(parsed(), DistRecipe()) == Schedule()
    assert PLAN["augmentation"] == {"elastic": 9.0, "background": 0.5}, "the recipe's own mapping is left alone"


def test_patches_can_be_left_as_they_are() -> None:
    assert command._schedule(parsed("--augment", "none"), Planned(plan=PLAN)).augmentation == NONE
    some = command._schedule(parsed("--augment", "none", "--augment", "elastic=3"), Planned(plan=PLAN)).augmentation
    assert some.elastic == 3 and some.background == 0 and not some.mirror


@pytest.mark.parametrize("plan", [{"stepz": 3}, {"steps": -1}, {"augmentation": {"spin": 1}}])
def test_a_schedule_that_makes_no_sense_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        command._schedule(parsed(), Planned(plan=plan))


def test_conformance_looks_at_the_hooks() -> None:
    """Auxiliary maps that name nuclei by their labels, batches without a seed and unknown settings are found."""

    class Sorted(Mirrored):
        def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
            return labels[None].astype(np.float32)

    class Seedless(Supplied):
        pass

    for check, recipe in (
        (conformance.check_guide, Sorted()),
        (conformance.check_batches, Seedless()),
    ):
        with pytest.raises(AssertionError):
            check(recipe)
    with pytest.raises(Exception, match="stepz"):
        conformance.check_schedule(Planned(plan={"stepz": 3}))
