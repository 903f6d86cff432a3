"""Images of another data set in addition to one's own: which are taken, and how often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from blobs import blobs, write_folder
from nuclix.engine.cli import main
from nuclix.engine.errors import DataError
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.training.augmentation import NONE
from nuclix.engine.training.contracts import Annotated, BatchShape
from nuclix.engine.training.dataset import Dataset, load_dataset, with_extra
from nuclix.engine.training.sampler import Sampler
from nuclix.engine.training.splits import held_out
from nuclix.plugins.recipes.dist import DistRecipe

OTHERS = [f"he_{number}" for number in range(9)] + [f"fluo_{number}" for number in range(6)]


@pytest.fixture
def own() -> Dataset:
    return Dataset(tuple(blobs(f"own{seed}", seed=seed) for seed in range(3)), (blobs("v", seed=9),), "made up")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "other", [blobs(name, seed=seed) for seed, name in enumerate(OTHERS)])


def test_only_matching_images_that_are_not_held_out_are_taken(own: Dataset, other: Path) -> None:
    more = with_extra(own, other, "he_*", 0.3)
    assert {item.name for item in more.extra} == {name for name in OTHERS if name[0] == "h" and not held_out(name)}
    assert (more.train, more.validation, more.split, more.share) == (own.train, own.validation, own.split, 0.3)
    assert not {item.name for item in load_dataset(other).validation} & {item.name for item in more.extra}


def test_patterns_tell_capitals_apart_and_nothing_found_is_an_error(own: Dataset, other: Path) -> None:
    for pattern in ("HE_*", "none*", ""):
        with pytest.raises(DataError, match="no image to train on matches"):
            with_extra(own, other, pattern, 0.3)


def test_a_folders_own_split_keeps_its_validation_out(own: Dataset, other: Path) -> None:
    rows = [f"{name},{'validation' if name == 'he_0' else 'train'}\n" for name in OTHERS]
    (other / "split.csv").write_text("image,split\n" + "".join(rows))
    assert {item.name for item in with_extra(own, other, "*", 0.5).extra} == set(OTHERS) - {"he_0"}


def test_weights_give_the_extra_images_their_share(own: Dataset, other: Path) -> None:
    assert own.weights is None
    weights = with_extra(own, other, "*", 0.25).weights
    assert weights is not None
    assert sum(weights) == pytest.approx(1) and sum(weights[3:]) == pytest.approx(0.25)
    assert len(set(np.round(weights[:3], 12))) == len(set(np.round(weights[3:], 12))) == 1


def plain(name: str, shade: int) -> Annotated:
    return Annotated(name, np.full((40, 40, 3), shade, np.uint8), np.zeros((40, 40), np.int32))


def shades(weights: list[float] | None, batches: int = 40) -> torch.Tensor:
    """Which image each patch of some batches comes from: image k is of the grey level 10 k."""
    images = [plain(str(number), 10 * number) for number in range(5)]
    sampler = Sampler(DistRecipe(n_feat=2, depth=1), images, NONE, BatchShape(25, 16), 0, weights)
    drawn = torch.cat([sampler.batch(step)[0][:, 0, 0, 0] for step in range(batches)])
    return torch.bincount((drawn / 10).round().long(), minlength=5) / len(drawn)


def test_patches_come_from_images_by_their_weights() -> None:
    weights = [0.1, 0.0, 0.2, 0.3, 0.4]
    found = shades(weights)
    assert found[1] == 0
    assert torch.allclose(found, torch.tensor(weights), atol=0.06)  # 1000 draws: four standard deviations
    assert torch.allclose(found, shades([10 * weight for weight in weights])), "the unit does not matter"


def test_without_weights_all_images_are_as_likely() -> None:
    assert torch.allclose(shades(None), torch.full((5,), 0.2), atol=0.06)


def test_weighted_batches_are_a_function_of_the_step() -> None:
    images = [blobs(str(seed), seed=seed) for seed in range(3)]
    first, again = (
        Sampler(DistRecipe(n_feat=2, depth=1), images, NONE, BatchShape(4, 16), 3, [0.2, 0.3, 0.5]) for _ in range(2)
    )
    first.batch(0)
    for one, two in zip(first.batch(7), again.batch(7), strict=True):
        assert torch.equal(one, two)


def test_the_command_says_in_the_card_what_else_was_learned_from(tmp_path: Path, other: Path, own: Dataset) -> None:
    data = write_folder(tmp_path / "own", [*own.train, *own.validation])
    (data / "split.csv").write_text("image,split\nown0,train\nown1,train\nown2,train\nv,validation\n")
    out = tmp_path / "model.pt"
    words = "--steps 2 --batch 2 --patch 32 --n-feat 2 --set depth=1 --threads 1 --device cpu --precision float32"
    more = ["--extra-data", str(other), "--extra-names", "he_*", "--extra-share", "0.4"]
    assert main(["train", "dist", "--data", str(data), "--out", str(out), *words.split(), *more]) == 0
    training = load_model(out).card.training
    assert training["images"] == ["own0", "own1", "own2"]
    assert training["extra images"] == [name for name in sorted(OTHERS) if name[0] == "h" and not held_out(name)]
    assert training["share"] == 0.4


@pytest.mark.parametrize("share", ["0", "1", "-0.5", "half"])
def test_shares_that_leave_one_part_nothing_are_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "dist", "--data", "a", "--out", "b.pt", "--extra-data", "c", "--extra-share", share])
    assert "--extra-share" in capsys.readouterr().err
