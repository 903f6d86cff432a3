"""The multi-head recipe: the conformance suite, targets and losses by definition, and how far its networks see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from blobs import blob_labels, blobs
from nuclix.engine import registry
from nuclix.engine.cli import main
from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.inference.batch_norm import fold_batch_norm
from nuclix.engine.inference.model_file import save_model
from nuclix.engine.training.augmentation import Augmentation
from nuclix.engine.training.contracts import BatchShape, Recipe
from nuclix.engine.training.sampler import Sampler
from nuclix.plugins.recipes._multihead_network import Middle, Reduction, SqueezeExcitation
from nuclix.plugins.recipes.multihead import MultiHeadRecipe
from nuclix.testing.recipe import CHECKS, Check, calm

TINY = MultiHeadRecipe(width=0.05, middle=0, squeeze=3)
SMALL = (
    TINY,
    MultiHeadRecipe(architecture="xception", width=0.05, middle=1, activation="relu"),
    MultiHeadRecipe(architecture="unet", width=0.05, activation="elu", criterion="dice"),
    MultiHeadRecipe(width=0.05, middle=0, squeeze=0, criterion="cross-entropy"),
)
LABELS = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


@pytest.mark.parametrize("recipe", SMALL, ids=repr)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: Recipe) -> None:
    check(recipe)


def test_the_recipe_is_registered() -> None:
    assert registry.load(registry.RECIPES, "multihead") is MultiHeadRecipe
    with pytest.raises(AssertionError):  # the excuse is needed: without it the suite would object
        CHECKS[-1](Unexcused(width=0.05, middle=0, squeeze=0))


class Unexcused(MultiHeadRecipe):
    """Averages over its whole patch and does not say so."""

    sees_whole_patch = False  # type: ignore[assignment]


def around(labels: NDArray[np.int32], row: int, col: int, radius: int) -> NDArray[np.int32]:
    """The square around a pixel, cut off at the image's edge."""
    return labels[max(row - radius, 0) : row + radius + 1, max(col - radius, 0) : col + radius + 1]


@given(LABELS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_targets_by_definition(labels: NDArray[np.int32], shrink: int, touch: int) -> None:
    nuclei, borderless, touching = replace(TINY, shrink=shrink, touch=touch).targets(labels)
    for row, col in np.ndindex(labels.shape):
        label = labels[row, col]
        assert nuclei[row, col] == (label > 0)
        assert borderless[row, col] == (label > 0 and bool((around(labels, row, col, shrink) == label).all()))
        near = around(labels, row, col, touch)
        assert touching[row, col] == (len(np.unique(near[near > 0])) > 1)


def test_markers_of_the_targets_are_the_nuclei() -> None:
    """A perfect network would find every nucleus that is wide enough to have an inside."""
    labels = blob_labels((120, 110), seed=4)
    nuclei, borderless, touching = TINY.targets(labels)
    markers, count = ndi.label((borderless - touching) > 0.5)
    for number in range(1, count + 1):
        assert len(np.unique(labels[markers == number])) == 1
    assert not (borderless > nuclei).any()


def test_cross_entropy_and_dice_by_definition() -> None:
    outputs = torch.tensor([[[[0.0, 2.0]], [[-1.0, 3.0]]], [[[1.0, -2.0]], [[0.5, 0.0]]]])
    targets = torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]]], [[[1.0, 0.0]], [[0.0, 0.0]]]])
    found, true = outputs.sigmoid().numpy(), targets.numpy()
    entropy = -(true * np.log(found) + (1 - true) * np.log(1 - found)).mean()
    fractions = [
        (2 * (found[:, c] * true[:, c]).sum() + 1) / (found[:, c].sum() + true[:, c].sum() + 1) for c in range(2)
    ]
    dice = 1 - np.mean(fractions)
    for criterion, expected in (("cross-entropy", entropy), ("dice", dice), ("both", entropy + dice)):
        loss = replace(TINY, criterion=criterion).loss()(outputs, targets)
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_dice_of_a_perfect_and_of_an_inverted_answer() -> None:
    targets = torch.from_numpy(TINY.targets(blob_labels((64, 64), seed=1)))[None]
    loss = replace(TINY, criterion="dice").loss()
    assert float(loss((targets - 0.5) * 100, targets)) == pytest.approx(0, abs=1e-3)
    assert float(loss((0.5 - targets) * 100, targets)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("criterion", ["both", "cross-entropy", "dice"])
def test_a_batch_without_touching_borders_has_a_finite_loss(criterion: str) -> None:
    outputs = torch.randn(2, 3, 8, 8, requires_grad=True)
    replace(TINY, criterion=criterion).loss()(outputs, torch.zeros(2, 3, 8, 8)).backward()
    assert outputs.grad is not None and bool(torch.isfinite(outputs.grad).all())


@pytest.mark.parametrize(
    "recipe",
    [
        replace(TINY, squeeze=1),
        TINY,
        replace(TINY, architecture="xception", middle=1),
        replace(TINY, architecture="unet"),
    ],
    ids=repr,
)
def test_radius_is_what_gradients_reach(recipe: MultiHeadRecipe) -> None:
    """Over all phases of the poolings, the farthest input pixel with a gradient lies at `radius`, none farther."""
    radius, multiple = recipe._shape.radius, recipe.patch.multiple
    network = smooth(recipe.network()).double().eval()
    middle = -(-radius // multiple) * multiple
    reached = 0
    image = torch.rand(1, 3, 2 * middle + multiple, multiple, dtype=torch.float64, requires_grad=True)
    outputs = network(image)
    for phase in range(multiple):
        (gradient,) = torch.autograd.grad(outputs[0, :, middle + phase].sum(), image, retain_graph=True)
        rows = torch.nonzero(gradient.abs().sum((0, 1, 3)) > 0).flatten() - (middle + phase)
        reached = max(reached, int(rows.abs().max()))
    assert reached == radius


def smooth(network: torch.nn.Module) -> torch.nn.Module:
    """Give every pixel a gradient: nothing blocks, positive weights do not cancel, averages instead of maxima."""
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0)
            part.weight.data /= part.weight[0].numel()
        for name, child in part.named_children():
            if isinstance(child, torch.nn.SELU | torch.nn.Sigmoid | torch.nn.ReLU):
                setattr(part, name, torch.nn.Identity())
            if isinstance(child, torch.nn.MaxPool2d):
                setattr(part, name, torch.nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return network


def test_sizes_of_the_papers() -> None:
    def parameters(recipe: MultiHeadRecipe) -> int:
        return sum(item.numel() for item in recipe.network().parameters())

    assert parameters(MultiHeadRecipe("unet", width=1)) == pytest.approx(31.0e6, rel=0.01)  # U-Net paper
    encoder = MultiHeadRecipe("xception", width=1, middle=8).network().encoder
    assert sum(item.numel() for item in encoder.parameters()) == pytest.approx(20.8e6, rel=0.01)  # Keras, without top
    poolings = sum(isinstance(part, Reduction) for part in encoder.modules())
    assert (poolings, sum(isinstance(part, Middle) for part in encoder.modules())) == (4, 8)


def test_a_strided_residual_is_the_convolution_of_every_other_pixel() -> None:
    torch.manual_seed(0)
    block = Reduction((8, 8, 16), TINY._shape).eval()
    x = torch.randn(1, 8, 10, 12)
    convolution = block.residual[1]
    expected = torch.nn.functional.conv2d(x, convolution.weight, stride=2)
    assert torch.allclose(block.residual[:2](x), expected, atol=1e-6)


def test_squeeze_over_all_cells_is_squeeze_over_a_window_that_holds_them() -> None:
    torch.manual_seed(0)
    whole, local = SqueezeExcitation(8, 0), SqueezeExcitation(8, 15)
    local.load_state_dict(whole.state_dict())
    x = torch.randn(2, 8, 6, 7)
    assert torch.allclose(whole(x), local(x), atol=1e-6)


def test_every_convolution_but_the_head_and_the_gates_has_a_batch_norm_and_folding_changes_nothing() -> None:
    for recipe in SMALL:
        network = calm(recipe)
        convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d) and part.bias is None]
        depthwise = [part for part in convolutions if part.groups > 1]
        ups = [part for part in network.modules() if isinstance(part, torch.nn.ConvTranspose2d)]
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        assert len(norms) == len(convolutions) + len(ups) - len(depthwise)
        image = torch.randn(1, 3, 64, 96)
        with torch.inference_mode():
            assert torch.allclose(network(image), fold_batch_norm(network)(image), atol=1e-4)


def test_a_small_image_gives_patches_of_any_size() -> None:
    """Most of the competition's images are as large as a patch, some are smaller than a patch with its context."""
    item = blobs("small", (70, 90), seed=2)
    sampler = Sampler(TINY, [item], Augmentation(), BatchShape(3, 128), seed=1)
    images, targets = sampler.batch(0)
    assert images.shape == targets.shape == (3, 3, 128, 128)
    assert set(np.unique(targets.numpy())) == {0.0, 1.0}
    assert targets[:, 0].mean() > 0.05


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "vgg"},
        {"activation": "tanh"},
        {"width": 0.0},
        {"width": 1.5},
        {"middle": -1},
        {"squeeze": 4},
        {"squeeze": -1},
        {"criterion": "focal"},
        {"shrink": 0},
        {"touch": 0},
    ],
    ids=str,
)
def test_impossible_recipes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        MultiHeadRecipe(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("squeeze", [0, 3])
def test_objects_do_not_depend_on_blocks(tmp_path: Path, squeeze: int) -> None:
    """Nor where the network averages over whole patches: the grid of patches is fixed."""
    recipe = replace(TINY, squeeze=squeeze)
    patch = PatchShape(128, 32, 32)  # far less than the network's reach, so that patches do disagree
    card = ModelCard(
        "tiny", "multihead", recipe.scale, patch, recipe.maps, "markers",
        {"nuclei": 0.5, "marker": 0.1, "min_area": 4}, (ObjectClass("Nucleus", (0, 200, 120)),),
    )  # fmt: skip
    save_model(tmp_path / "tiny.pt", recipe.exported(calm(recipe)), card)
    Image.fromarray(blobs("image", (110, 170), seed=3).image).save(tmp_path / "image.png")
    found = []
    for block in (40, 1000):
        out = tmp_path / f"out{block}"
        options = ["--mpp", "0.25", "--no-tissue", "--device", "cpu", "--quiet", "--block", str(block)]
        arguments = ["run", str(tmp_path / "image.png"), "--model", str(tmp_path / "tiny.pt"), "--out", str(out)]
        assert main([*arguments, *options]) == 0
        found.append((out / "image.geojson").read_bytes())
    assert found[0].count(b"Polygon") > 5
    assert found[0] == found[1]
