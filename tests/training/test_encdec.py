"""The encoder-decoder: what every recipe must do, and what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blobs import blobs
from nuclix.engine import registry
from nuclix.engine.training.contracts import AuxiliaryMaps, CustomLoss, CustomSchedule, Recipe
from nuclix.engine.training.unet import UNetShape
from nuclix.plugins.recipes._encdec_network import EncoderDecoder
from nuclix.plugins.recipes.encdec import EncDecRecipe
from nuclix.testing.recipe import CHECKS, Check

SMALL = (
    EncDecRecipe(n_feat=2, levels=3),
    EncDecRecipe(n_feat=2, levels=2, weights="near", annotated=0.9, gap=False),
    EncDecRecipe(n_feat=2, levels=2, weights="plain"),
)


@pytest.mark.parametrize("recipe", SMALL, ids=repr)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: Recipe) -> None:
    check(recipe)


def test_the_recipe_is_registered() -> None:
    assert registry.load(registry.RECIPES, "encdec") is EncDecRecipe
    recipe = EncDecRecipe()
    assert isinstance(recipe, AuxiliaryMaps) and isinstance(recipe, CustomLoss) and isinstance(recipe, CustomSchedule)


def test_the_papers_margin_is_an_option_that_is_narrower_than_what_the_network_sees() -> None:
    paper = EncDecRecipe(n_feat=2, paper_patch=True)
    assert (paper.patch.size, paper.patch.margin, paper.patch.valid) == (256, 64, 128)
    assert EncDecRecipe(n_feat=2).patch.margin >= UNetShape(2, 4, 1).radius > paper.patch.margin


DRAWS = 4  # images a phase: a pooling passes on its largest pixel alone, and that must be the farthest once


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_network_sees_as_far_as_its_margin_says(levels: int) -> None:
    """Over all phases of the poolings, the farthest input pixel with a gradient lies at the radius, none farther."""
    shape = UNetShape(1, levels - 1, 1, channels=2)
    rng = torch.Generator().manual_seed(levels)
    network = EncoderDecoder(shape).double().eval()
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0, generator=rng)  # no ReLU that blocks, none that cancel
            torch.nn.init.zeros_(part.bias)
    size = -(-(2 * shape.radius + 2 * shape.multiple) // shape.multiple) * shape.multiple
    middle = size // 2 // shape.multiple * shape.multiple
    reached = 0
    for phase in [*range(shape.multiple)] * DRAWS:
        image = torch.rand(1, 3, size, size, dtype=torch.float64, generator=rng).requires_grad_()
        network(image)[0, :, middle + phase, middle].sum().backward()
        rows = torch.nonzero(image.grad.abs().sum((0, 1, 3)) > 0).flatten() - (middle + phase)
        reached = max(reached, int(rows.abs().max()))
    assert reached == shape.radius


def test_five_levels_of_the_papers_width_are_a_u_net() -> None:
    network = EncDecRecipe(n_feat=64).network()
    assert len(network.encoder) == 5 and len(network.decoder) + 1 == 5  # type: ignore[arg-type]
    assert sum(item.numel() for item in network.parameters()) == pytest.approx(31.0e6, rel=0.01)


def test_normalisation_comes_after_every_non_linearity() -> None:
    blocks = [part for part in EncoderDecoder(UNetShape(2, 2, 1)).modules() if isinstance(part, torch.nn.Sequential)]
    assert len(blocks) == 5
    for block in blocks:
        kinds = [type(part) for part in block]
        assert kinds == [torch.nn.Conv2d, torch.nn.ReLU, torch.nn.BatchNorm2d] * 2
        assert all(part.padding == (1, 1) for part in block if isinstance(part, torch.nn.Conv2d))


def weights_by_hand(recipe: EncDecRecipe, labels: NDArray[np.int32], doubt: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Eqs. 2, 3 and 4 pixel by pixel, for nuclei that do not touch."""
    out = np.zeros((2, *labels.shape), np.float32)
    rows, cols = np.indices(labels.shape)
    for row, col in np.ndindex(labels.shape):
        if labels[row, col]:
            out[1, row, col] = 1
            continue
        distance = np.hypot(rows - row, cols - col)[labels > 0].min()
        near = 1.0 if distance <= recipe.alpha else np.exp(-recipe.beta * (distance - recipe.alpha))
        out[0, row, col] = max(near, 0 if doubt[row, col] else recipe.certainty)
    return out


def two_nuclei() -> NDArray[np.int32]:
    labels = np.zeros((24, 30), np.int32)
    labels[3:8, 4:9] = 1
    labels[12:20, 15:22] = 2
    return labels


@pytest.mark.parametrize("gap", [True, False])
def test_targets_are_equation_4(gap: bool) -> None:
    labels, doubt = two_nuclei(), np.random.default_rng(0).random((24, 30)) < 0.5
    recipe = EncDecRecipe(alpha=2.0, beta=0.3, certainty=0.4, gap=gap)
    auxiliary = np.stack([doubt, np.zeros_like(doubt)]).astype(np.float32)
    expected = weights_by_hand(recipe, labels, doubt)
    np.testing.assert_allclose(recipe.targets_with_auxiliary(labels, auxiliary), expected, atol=1e-6)


def test_nuclei_that_are_not_outlined_are_as_if_they_were_not_there() -> None:
    labels = two_nuclei()
    auxiliary = np.stack([np.ones_like(labels), labels == 2]).astype(np.float32)
    recipe = EncDecRecipe()
    alone = np.where(labels == 1, 1, 0).astype(np.int32)
    assert np.array_equal(
        recipe.targets_with_auxiliary(labels, auxiliary),
        recipe.targets_with_auxiliary(alone, np.stack([auxiliary[0], np.zeros_like(auxiliary[1])])),
    )
    assert not recipe.targets_with_auxiliary(labels, auxiliary)[1][labels == 2].any()


def test_plain_cross_entropy_takes_them_for_background() -> None:
    labels = two_nuclei()
    auxiliary = np.stack([np.ones_like(labels), labels == 2]).astype(np.float32)
    targets = EncDecRecipe(weights="plain").targets_with_auxiliary(labels, auxiliary)
    assert np.array_equal(targets, np.stack([labels != 1, labels == 1]))


def test_a_gap_parts_nuclei_that_touch() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 3, np.int32)
    nothing = np.zeros((2, 3, 6), np.float32)
    assert EncDecRecipe(gap=False).targets_with_auxiliary(labels, nothing)[1].all()
    parted = EncDecRecipe().targets_with_auxiliary(labels, nothing)
    assert parted[1].tolist() == [[1, 1, 0, 0, 1, 1]] * 3
    assert np.array_equal(parted[0], 1 - parted[1])


def test_patches_without_nuclei_are_background_by_the_certainty() -> None:
    """Background and streaks come with labels and auxiliary maps of zeros."""
    targets = EncDecRecipe(certainty=0.3).targets_with_auxiliary(
        np.zeros((8, 8), np.int32), np.zeros((2, 8, 8), np.float32)
    )
    assert np.allclose(targets[0], 0.3) and not targets[1].any()


def test_the_guide_knows_stroma_from_nuclei() -> None:
    item = blobs("made up", (96, 112), seed=1)
    doubtful, hidden = EncDecRecipe(erosion=2).auxiliary_maps(item.image, item.labels)
    assert not hidden.any()
    assert doubtful[item.labels > 0].all(), "no nucleus is in the background cluster"
    assert doubtful[item.labels == 0].mean() < 0.3


def test_loss_is_equation_5() -> None:
    outputs, targets = torch.randn(2, 2, 3, 4), torch.rand(2, 2, 3, 4)
    probability = np.exp(outputs.numpy()) / np.exp(outputs.numpy()).sum(1, keepdims=True)
    expected = -(targets.numpy() * np.log(probability)).sum() / (2 * 3 * 4)
    assert float(EncDecRecipe().loss()(outputs, targets)) == pytest.approx(expected, rel=1e-5)


def test_objective_adds_the_squared_weights_of_convolutions() -> None:
    recipe = EncDecRecipe(n_feat=2, levels=2, decay=0.5)
    network = recipe.network().eval()
    images, targets = torch.randn(1, 3, 8, 8), torch.rand(1, 2, 8, 8)
    squares = sum(float(item.detach().square().sum()) for item in network.parameters() if item.ndim == 4)
    expected = float(recipe.loss()(network(images), targets).detach()) + 0.5 * squares / 64  # 8 x 8 px
    assert float(recipe.objective()(network, images, targets).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"n_feat": 0}, {"levels": 1}, {"weights": "none"}, {"alpha": -1.0}, {"certainty": 1.5}, {"annotated": 0.0}],
)
def test_impossible_recipes_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|at least"):
        EncDecRecipe(**fields)  # type: ignore[arg-type]


def test_patches_are_chosen_by_what_they_hold() -> None:
    """Section 3.1: over a tenth of nuclei and over two fifths of background, both dilated."""
    recipe, labels = EncDecRecipe(n_feat=2), np.zeros((100, 100), np.int32)
    sure, doubtful = np.zeros((2, 100, 100), np.float32), np.ones((2, 100, 100), np.float32)
    doubtful[1] = 0
    assert not recipe.accepts(labels, sure), "no nuclei"
    labels[:9] = 1  # 12 rows when dilated
    assert recipe.accepts(labels, sure)
    assert not recipe.accepts(labels, doubtful), "no background that is sure"
    labels[9:70] = 2
    assert not recipe.accepts(labels, sure), "33 rows of background"
    unmarked = sure.copy()
    unmarked[1] = 1
    assert not recipe.accepts(labels, unmarked), "nuclei that are not outlined do not count"
    assert EncDecRecipe(n_feat=2, choose_patches=False).accepts(labels, unmarked)
