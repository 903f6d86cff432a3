"""Training: the loss falls, a kill costs nothing, a seed gives the same weights again."""

from __future__ import annotations

import csv
import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from blobs import blob_dataset
from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.training.log import Progress
from nuclix.engine.training.loop import CHECKPOINT, LOG, LOSS_EVERY, Place, train
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.state import TrainingState, blended
from nuclix.plugins.recipes.dist import DistRecipe

RECIPE = DistRecipe(n_feat=4, depth=1)
SHORT = Schedule(steps=2 * LOSS_EVERY, batch=2, patch=32, warmup=5, precision="float32", average=0.9)


class KillError(Exception):
    """Stands for a kill: raised in the middle of a training."""


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, schedule: Schedule = SHORT, resume: bool = False, kill_at: int = 0) -> TrainingState:
    def report(progress: Progress) -> None:
        if progress.step == kill_at:
            raise KillError

    place = Place(folder, "cpu", resume, validate_every=10_000, checkpoint_seconds=0.0)
    return train(RECIPE, blob_dataset(), schedule, place, report)


def weights(state: TrainingState) -> list[torch.Tensor]:
    return [*state.network.state_dict().values(), *state.average.state_dict().values()]


def same(first: TrainingState, second: TrainingState) -> bool:
    return all(torch.equal(one, two) for one, two in zip(weights(first), weights(second), strict=True))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_it_learns(tmp_path: Path) -> None:
    schedule = dataclasses.replace(SHORT, steps=4 * LOSS_EVERY, learning_rate=1e-2)
    run(tmp_path, schedule)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]
    last = rows(tmp_path)[-1]
    assert float(last["f1"]) > 0.6
    assert 0 < float(last["aji"]) <= 1 and 0 <= float(last["pq"]) <= 1


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Killed after rows were logged that no checkpoint holds, it still ends with the same bits and the same log."""
    schedule = dataclasses.replace(SHORT, steps=3 * LOSS_EVERY)
    whole = run(tmp_path / "whole", schedule)
    with pytest.raises(KillError):
        run(tmp_path / "killed", schedule, kill_at=2 * LOSS_EVERY)
    assert len(rows(tmp_path / "killed")) == 2
    resumed = run(tmp_path / "killed", schedule, resume=True)
    assert resumed.step == whole.step == 3 * LOSS_EVERY
    assert same(whole, resumed)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_seed_gives_the_same_weights(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    other = run(tmp_path / "c", dataclasses.replace(SHORT, seed=1))
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator was moved"


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    done = run(tmp_path)
    again = run(tmp_path, resume=True)
    assert again.step == done.step
    assert same(done, again)


def test_an_earlier_training_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UsageError, match="--resume"):
        run(tmp_path)


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(DataError, match=r"seed 0 -> 5"):
        run(tmp_path, dataclasses.replace(SHORT, seed=5), resume=True)


def test_a_training_can_start_from_an_earlier_one(tmp_path: Path) -> None:
    """With a rate of zero the first weights stay: they are the earlier training's average."""
    earlier = run(tmp_path / "earlier")
    schedule = dataclasses.replace(SHORT, learning_rate=1e-30, weight_decay=0.0)
    place = Place(tmp_path / "later", "cpu", validate_every=10_000, start=tmp_path / "earlier" / CHECKPOINT)
    later = train(RECIPE, blob_dataset(), schedule, place, lambda _: None)
    pairs = zip(earlier.average.parameters(), later.network.parameters(), strict=True)
    assert all(torch.equal(before, after) for before, after in pairs)
    with pytest.raises(DataError, match="another network"):
        train(DistRecipe(n_feat=2, depth=1), blob_dataset(), schedule, place, lambda _: None)


def test_a_blend_lies_between_two_trainings(tmp_path: Path) -> None:
    earlier = run(tmp_path / "earlier")
    later = run(tmp_path / "later", dataclasses.replace(SHORT, seed=5))
    mixed = blended(later.average, tmp_path / "earlier" / CHECKPOINT, 0.25)
    for name, value in mixed.state_dict().items():
        before, after = earlier.average.state_dict()[name], later.average.state_dict()[name]
        expected = 0.25 * before + 0.75 * after if value.is_floating_point() else after
        assert torch.allclose(value, expected), name


def test_outputs_that_the_earlier_training_lacked_begin_fresh(tmp_path: Path) -> None:
    earlier = run(tmp_path / "earlier")
    schedule = dataclasses.replace(SHORT, learning_rate=1e-30, weight_decay=0.0)
    place = Place(tmp_path / "later", "cpu", validate_every=10_000, start=tmp_path / "earlier" / CHECKPOINT)
    recipe = dataclasses.replace(RECIPE, auxiliary=0.5)
    later = train(recipe, blob_dataset(), schedule, place, lambda _: None)
    for name, value in earlier.average.named_parameters():
        assert torch.equal(value, later.network.get_parameter(name)[: len(value)]), name


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_a_broken_checkpoint_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(DataError, match=CHECKPOINT):
        run(tmp_path, resume=True)


def test_a_checkpoint_is_never_unpickled_freely(tmp_path: Path) -> None:
    """A pickle that would run code is refused, not run."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (Path.write_text, (tmp_path / "ran", "boom"))  # type: ignore[return-value]

    torch.save({"format": 1, "settings": Bomb()}, tmp_path / CHECKPOINT)
    with pytest.raises(DataError):
        run(tmp_path, resume=True)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device"):
        train(RECIPE, blob_dataset(), SHORT, Place(tmp_path, "abacus"), lambda _: None)


def test_the_rate_warms_up_then_falls_to_a_hundredth() -> None:
    schedule = Schedule(steps=1000, warmup=100, learning_rate=1.0)
    rates = [schedule.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == 1.0
    assert all(later <= earlier for earlier, later in pairwise(rates[99:]))
    assert rates[-1] == pytest.approx(0.01)


@pytest.mark.gpu
def test_mixed_precision_on_a_gpu(tmp_path: Path) -> None:
    schedule = dataclasses.replace(SHORT, precision="auto")
    state = train(RECIPE, blob_dataset(), schedule, Place(tmp_path, "cuda"), lambda _: None)
    assert state.step == schedule.steps
    assert all(item.device.type == "cpu" and torch.isfinite(item).all() for item in weights(state))


def test_batches_drawn_by_processes_give_the_same_weights(tmp_path: Path) -> None:
    schedule = dataclasses.replace(SHORT, steps=12)
    here = run(tmp_path / "here", schedule)
    place = Place(tmp_path / "processes", "cpu", validate_every=10_000, num_workers=2)
    assert same(here, train(RECIPE, blob_dataset(), schedule, place, lambda progress: None))


def test_a_frozen_encoder_keeps_its_weights_and_statistics_until_its_time_is_over(tmp_path: Path) -> None:
    torch.manual_seed(SHORT.seed)
    fresh = RECIPE.network().state_dict()
    frozen = run(tmp_path / "frozen", dataclasses.replace(SHORT, steps=6, freeze_encoder=6)).network.state_dict()
    for name, value in fresh.items():
        if name.startswith("encoder."):
            assert torch.equal(frozen[name], value), name
    assert not torch.equal(frozen["decoder.0.0.weight"], fresh["decoder.0.0.weight"])
    thawed = run(tmp_path / "thawed", dataclasses.replace(SHORT, steps=8, freeze_encoder=6)).network.state_dict()
    assert not torch.equal(thawed["encoder.0.0.weight"], fresh["encoder.0.0.weight"])


def test_the_rate_does_not_fall_below_its_lower_bound() -> None:
    schedule = Schedule(steps=1000, warmup=10, learning_rate=1e-3, decay=0.5, decay_every=100, min_learning_rate=1e-4)
    rates = [schedule.rate(step) for step in range(1000)]
    assert rates[0] == 1e-4 and max(rates) == 1e-3 and rates[-1] == 1e-4
    assert rates[250] == 1e-3 * 0.25
