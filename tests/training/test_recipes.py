"""The built-in recipes do what every recipe must, and DIST does what its paper says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blobs import blob_labels
from nuclix.engine import registry
from nuclix.engine.contracts import PatchShape
from nuclix.engine.inference.batch_norm import fold_batch_norm
from nuclix.engine.training.contracts import Recipe
from nuclix.engine.training.unet import Exported, UNet, UNetShape, normalise
from nuclix.plugins.recipes._hovernet_network import centre_loss
from nuclix.plugins.recipes.dist import DistRecipe
from nuclix.plugins.recipes.hovernet import HoVerNetRecipe
from nuclix.testing.recipe import CHECKS, Check, calm, example_images

SMALL = (
    DistRecipe(n_feat=4, depth=2),
    DistRecipe(n_feat=2, depth=3, stem=1),
    DistRecipe(n_feat=4, depth=2, formulation="normalised"),
    DistRecipe(n_feat=4, depth=2, formulation="softmax"),
    DistRecipe(n_feat=4, depth=2, auxiliary=0.5, root=True),
    DistRecipe(n_feat=4, depth=2, stem=1, formulation="softmax", auxiliary=0.5, centre=0.5),
)


@pytest.mark.parametrize("recipe", SMALL, ids=repr)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: Recipe) -> None:
    check(recipe)


def test_the_recipe_is_registered() -> None:
    assert registry.load(registry.RECIPES, "dist") is DistRecipe


def distance_by_definition(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Chessboard distance to the nearest pixel of another label, pixel by pixel."""
    rows, cols = np.indices(labels.shape)
    out = np.zeros(labels.shape, np.float32)
    for row, col in np.argwhere(labels):
        other = labels != labels[row, col]
        out[row, col] = np.maximum(abs(rows - row), abs(cols - col))[other].min()
    return out


def test_dist_targets_are_the_distance_map_of_the_paper() -> None:
    labels = blob_labels((40, 36), seed=4)
    assert np.array_equal(DistRecipe().targets(labels)[0], distance_by_definition(labels))


def test_dist_loss_is_equation_3() -> None:
    outputs, targets = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert float(DistRecipe().loss()(outputs, targets)) == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize(("auxiliary", "centre"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_auxiliary_outputs_leave_before_the_export(stem: int, auxiliary: float, centre: float) -> None:
    plain = DistRecipe(n_feat=4, depth=2, stem=stem)
    recipe = replace(plain, auxiliary=auxiliary, centre=centre)
    network = calm(recipe)
    exported = recipe.exported(network)
    with torch.inference_mode():
        images = example_images(recipe, 2)
        expected = torch.relu(network(normalise(images))[:, :1])
        # one rounding: a 1x1 convolution of another number of outputs may sum in another order
        torch.testing.assert_close(exported(images), expected, rtol=1e-6, atol=1e-6)
    counts = [sum(value.numel() for value in module.parameters()) for module in (exported, plain.network())]
    assert counts[0] == counts[1]


def test_auxiliary_targets_are_nuclei_and_their_edges() -> None:
    labels = np.zeros((7, 9), np.int32)
    labels[2:5, 1:5], labels[2:5, 5:8] = 4, 9
    _, nuclei, edges = DistRecipe(auxiliary=1.0).targets(labels)
    assert np.array_equal(nuclei, labels > 0)
    assert edges[3, 4] == edges[3, 5] == 1, "two nuclei that touch have an edge between them"
    assert edges[3, 2] == 0 and edges[0, 0] == 0 and edges[1, 1] == 1


def test_the_auxiliary_loss_adds_to_the_distances_own() -> None:
    labels = blob_labels((32, 32), seed=1)
    recipe = DistRecipe(auxiliary=0.5)
    targets = torch.from_numpy(recipe.targets(labels))[None]
    outputs = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    others = [torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, c], targets[:, c]) for c in (1, 2)]
    expected = torch.mean((outputs[:, 0] - targets[:, 0]) ** 2) + 0.5 * (others[0] + others[1])
    assert float(recipe.loss()(outputs, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_centre_distances_are_learnt_as_hovernet_learns_them() -> None:
    labels = blob_labels((32, 32), seed=1)
    recipe, hovernet = DistRecipe(centre=0.5), HoVerNetRecipe()
    targets = torch.from_numpy(recipe.targets(labels))[None]
    assert np.array_equal(targets[0, 1:], hovernet.targets(labels)[1:])
    outputs = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    nuclei = targets[:, 1:].ne(0).any(1, keepdim=True).float()
    expected = DistRecipe().loss()(outputs[:, :1], targets[:, :1]) + 0.5 * centre_loss(
        outputs[:, 1:], targets[:, 1:], nuclei, 2.0
    )
    assert float(recipe.loss()(outputs, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_errors_of_roots_weigh_shallow_nuclei_more_and_have_a_slope_everywhere() -> None:
    loss = DistRecipe(root=True).loss()

    def of(output: float, target: float) -> float:
        return float(loss(torch.full((1, 1, 2, 2), output), torch.full((1, 1, 2, 2), target)))

    assert of(3.0, 3.0) == 0
    assert of(3.0, 2.0) > of(13.0, 12.0) > 0
    assert of(3.0, 2.0) == pytest.approx(8 * (3.05**0.5 - 2.05**0.5) ** 2, rel=1e-5)
    outputs = torch.tensor([[[[-2.0, -0.1, 0.0, 5.0]]]], requires_grad=True)
    loss(outputs, torch.full((1, 1, 1, 4), 1.0)).backward()
    assert outputs.grad is not None and bool((outputs.grad[..., :3] < 0).all()) and bool(outputs.grad[..., 3] > 0)


def test_normalised_distances_reach_one_in_every_nucleus() -> None:
    """B_{D,N} of section IV-C.2: the distance map of each nucleus over its maximum."""
    labels = blob_labels((60, 50), seed=4)
    raw, normalised = DistRecipe().targets(labels)[0], DistRecipe(formulation="normalised").targets(labels)[0]
    for name in np.unique(labels[labels > 0]):
        inside = labels == name
        assert np.array_equal(normalised[inside], raw[inside] / raw[inside].max())
    assert not normalised[labels == 0].any()
    assert np.array_equal(DistRecipe(formulation="softmax").targets(labels)[0], normalised)


def test_softmax_formulation_regresses_the_probability_of_the_nucleus() -> None:
    """softmax o f_2 of section IV-C.2; the loss sees the map that is exported."""
    recipe = DistRecipe(formulation="softmax")
    outputs, targets = torch.tensor([[[[0.0, 2.0]], [[0.0, -1.0]]]]), torch.tensor([[[[0.5, 0.0]]]])
    expected = 1 / (1 + np.exp(3.0))
    assert float(recipe.loss()(outputs, targets)) == pytest.approx(expected**2 / 2)
    activation = recipe.exported(torch.nn.Identity()).activation
    assert isinstance(activation, torch.nn.Module)
    assert activation(outputs).flatten().tolist() == pytest.approx([0.5, expected])


@pytest.mark.parametrize("formulation", ["normalised", "softmax"])
def test_parameters_of_normalised_maps_lie_within_them(formulation: str) -> None:
    for candidate in DistRecipe(formulation=formulation).candidates():
        assert 0 <= candidate["p1"] <= 1 and 0 < candidate["p2"] < 1


def test_unknown_formulations_are_refused() -> None:
    with pytest.raises(ValueError, match="formulation must be one of raw, normalised, softmax"):
        DistRecipe(formulation="log")


def test_dist_maps_are_never_negative() -> None:
    module = DistRecipe().exported(torch.nn.Identity())  # normalised images lie in -2..0
    with torch.inference_mode():
        assert torch.equal(module(torch.full((1, 1, 2, 2), 100)), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    "shape",
    [UNetShape(1, 2, 2), UNetShape(1, 2, 1), UNetShape(1, 3, 2), UNetShape(2, 1, 1, channels=3)],
    ids=repr,
)
def test_radius_is_what_gradients_reach(shape: UNetShape) -> None:
    """Over all phases of the poolings, the farthest input pixel with a gradient lies at `radius`, none farther."""
    torch.manual_seed(0)
    network = smooth(UNet(shape)).double().eval()
    size = -(-(2 * shape.radius + 2 * shape.multiple) // shape.multiple) * shape.multiple
    middle = size // 2 // shape.multiple * shape.multiple
    reached = 0
    for phase in range(shape.multiple):
        image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        network(image)[0, :, middle + phase, middle].sum().backward()
        assert image.grad is not None
        rows = torch.nonzero(image.grad.abs().sum((0, 1, 3)) > 0).flatten() - (middle + phase)
        reached = max(reached, int(rows.abs().max()))
    assert reached == shape.radius


def smooth(network: torch.nn.Module) -> torch.nn.Module:
    """Give every pixel a gradient: no ReLU that blocks, weights that do not cancel."""
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0)
        if isinstance(part, torch.nn.Sequential):
            for name, child in part.named_children():
                if isinstance(child, torch.nn.ReLU):
                    part._modules[name] = torch.nn.Identity()
    return network


def test_sizes_of_the_paper_and_of_the_default() -> None:
    paper = DistRecipe(n_feat=64, depth=4, stem=1)
    assert sum(item.numel() for item in paper.network().parameters()) == pytest.approx(31.0e6, rel=0.01)  # U-Net
    assert sum(item.numel() for item in DistRecipe().network().parameters()) < 2e6
    assert DistRecipe().patch.margin >= UNetShape().radius


@pytest.mark.parametrize("fields", [{"stem": 3}, {"n_feat": 0}, {"depth": 0}, {"channels": 0}])
def test_impossible_networks_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        UNetShape(**fields)


def test_folding_batch_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    network = UNet(UNetShape(4, 2, 2))
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 32, 32))
        whole = Exported(network, torch.nn.Identity()).eval()
        folded = fold_batch_norm(whole)
        image = torch.randint(0, 256, (1, 3, 64, 64))
        assert torch.allclose(whole(image), folded(image), atol=1e-5)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in whole.modules())


def test_white_is_zero() -> None:
    assert normalise(torch.tensor([255, 0], dtype=torch.uint8)).tolist() == [0.0, -2.0]


@pytest.mark.parametrize("reach", [0, 1, 16, 104, 255, 256, 257, 408])
@pytest.mark.parametrize("multiple", [1, 16, 24, 32])
def test_the_usual_patch_hides_the_reach_and_is_at_most_half_margin(reach: int, multiple: int) -> None:
    patch = PatchShape.around(reach, multiple)
    assert reach <= patch.margin < reach + multiple
    assert patch.size >= 1024 and patch.valid >= 2 * patch.margin
