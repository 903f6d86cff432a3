"""The probability recipe does what every recipe must, and what its papers say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from blobs import blob_labels
from nuclix.engine.training.receptive_field import Layer, receptive_radius
from nuclix.plugins.recipes import _probability_networks as networks
from nuclix.plugins.recipes.probability import BORDER_PX, ProbabilityRecipe, between
from nuclix.testing.recipe import CHECKS, Check

SMALL = (
    ProbabilityRecipe(n_feat=4, depth=2, border_weight=3.0),
    ProbabilityRecipe("baochuan"),
    ProbabilityRecipe("fcn8s", width=1 / 64),
    ProbabilityRecipe("deconvnet", width=1 / 64),
)


@pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: recipe.architecture)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: ProbabilityRecipe) -> None:
    check(recipe)


@pytest.mark.parametrize(
    ("recipe", "radius"),
    list(zip(SMALL[1:], (networks.BAOCHUAN_RADIUS, networks.FCN_RADIUS, networks.DECONV_RADIUS), strict=True)),
    ids=lambda item: getattr(item, "architecture", ""),
)
def test_radius_is_what_gradients_reach(
    recipe: ProbabilityRecipe, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With means for maxima and copies for unpooling every input that can matter has a gradient: the same geometry."""
    monkeypatch.setattr(networks, "max_pool2d", mean_pooling)
    monkeypatch.setattr(networks, "unpool", lambda x, places, like: nn.functional.interpolate(x, scale_factor=2))
    torch.manual_seed(0)
    network, patch = smooth(recipe.network()).double().eval(), recipe.patch
    length = 2 * patch.margin + patch.multiple
    reached = 0
    for phase in range(patch.multiple):
        image = torch.rand(1, 3, length, patch.multiple, dtype=torch.float64, requires_grad=True)
        network(image)[0, :, patch.margin + phase, 0].sum().backward()
        assert image.grad is not None
        rows = torch.nonzero(image.grad.abs().sum((0, 1, 3)) > 0).flatten()
        reached = max(reached, int((rows - patch.margin - phase).abs().max()))
    assert reached == radius
    assert radius <= patch.margin < radius + patch.multiple


def mean_pooling(x: torch.Tensor, size: int, return_indices: bool = False) -> object:
    pooled = nn.functional.avg_pool2d(x, size)
    return (pooled, None) if return_indices else pooled


def smooth(network: nn.Module) -> nn.Module:
    """Give every pixel a gradient: no ReLU that blocks, weights that do not cancel."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            part.weight.data /= part.weight.data.sum()
        if isinstance(part, nn.Sequential):
            for name, child in part.named_children():
                if isinstance(child, nn.ReLU):
                    part._modules[name] = nn.Identity()
    return network


def convolutions(network: nn.Module) -> list[tuple[int, int]]:
    """Kernel and maps of each convolution, in the order of the data."""
    return [(part.kernel_size[0], part.out_channels) for part in network.modules() if isinstance(part, nn.Conv2d)]


def test_baochuan_has_four_layers_of_eight_maps() -> None:
    *layers, (kernel, classes) = convolutions(ProbabilityRecipe("baochuan").network())
    assert [maps for _, maps in layers] == [8, 8, 8, 8]
    assert (kernel, classes) == (1, 2)


def test_full_width_is_vgg16() -> None:
    """Thirteen 3x3 convolutions with VGG16's 14,710,464 weights, and the two dense layers as convolutions."""
    body = networks.vgg_stages(1.0)
    assert convolutions(body) == [(3, maps) for maps, count in networks.VGG_STAGES for _ in range(count)]
    assert sum(part.weight.numel() for part in body.modules() if isinstance(part, nn.Conv2d)) == 14_710_464
    assert convolutions(networks.dense(1 / 16)) == [(7, 256), (1, 256)]


def test_fcn_begins_as_bilinear_interpolation() -> None:
    """Away from the edges both kernels do what torch's interpolation does."""
    ramp = torch.arange(64, dtype=torch.float32).reshape(1, 1, 8, 8).repeat(1, 2, 1, 1)
    for size in (networks.UP_TWICE, networks.UP_EIGHT):
        grown = networks.bilinear(size)(ramp)
        expected = nn.functional.interpolate(ramp, scale_factor=size[1], mode="bilinear", align_corners=False)
        inner = slice(size[1], -size[1])
        assert torch.allclose(grown[..., inner, inner], expected[..., inner, inner], atol=1e-4)


def test_the_last_enlargement_of_fcn_is_not_learned() -> None:
    fixed = [name for name, value in ProbabilityRecipe("fcn8s", width=1 / 64).network().named_parameters()
             if not value.requires_grad]  # fmt: skip
    assert fixed == ["eightfold.weight"]


@settings(deadline=None)
@given(arrays(np.float32, (2, 3, 6, 8), elements=st.integers(0, 3).map(float)))
def test_unpooling_is_torchs(values: np.ndarray) -> None:
    """Ties, which are usual after a ReLU, included."""
    wide = torch.from_numpy(values)
    pooled, places = nn.functional.max_pool2d(wide, 2, return_indices=True)
    expected = nn.functional.max_unpool2d(pooled + 1, places, 2)
    assert torch.equal(networks.unpool(pooled + 1, places, wide), expected)


def test_deconvnet_has_no_skips() -> None:
    """With all maxima in one place, nothing of the image reaches the output but through the narrow middle."""
    torch.manual_seed(0)
    network = ProbabilityRecipe("deconvnet", width=1 / 64).network().eval()
    for part in network.dense.modules():  # type: ignore[union-attr]
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    with torch.no_grad():
        for stage in network.encoder:  # type: ignore[union-attr]
            for part in stage.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.constant_(part.weight, 0.1)
        first, second = network(ramp), network(2 * ramp)  # the same order everywhere, twice the values
    assert torch.allclose(first, second)


def test_plain_targets_are_the_binary_annotation() -> None:
    labels = blob_labels((40, 36), seed=4)
    nucleus, weight = ProbabilityRecipe().targets(labels)
    assert np.array_equal(nucleus, labels > 0)
    assert (weight == 1).all()


@given(arrays(np.int32, (7, 9), elements=st.integers(0, 3)), st.integers(1, 3))
def test_between_is_what_it_says(labels: np.ndarray, reach: int) -> None:
    rows, cols = np.indices(labels.shape)
    for row, col in np.ndindex(*labels.shape):
        near = labels[np.maximum(abs(rows - row), abs(cols - col)) <= reach]
        assert between(labels, reach)[row, col] == (len(np.unique(near[near > 0])) > 1)


def test_border_weights_part_touching_nuclei() -> None:
    labels = np.repeat([[0, 1, 1, 1, 1, 2, 2, 2, 2, 0]], 5, axis=0).astype(np.int32)
    nucleus, weight = ProbabilityRecipe(border_weight=4.0).targets(labels)
    assert nucleus[2].tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    assert weight[2].tolist() == [1, 1, 1, 5, 5, 5, 5, 1, 1, 1]
    assert BORDER_PX == 2


def test_loss_is_the_drafts() -> None:
    """The formula of section 4, term by term, with its sign put right."""
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 2, 3, 4, generator=rng)
    truth = torch.randint(0, 2, (2, 3, 4), generator=rng)
    weight = torch.rand(2, 3, 4, generator=rng)
    found = ProbabilityRecipe().loss()(outputs, torch.stack([truth.float(), weight], 1))
    means = []
    for image in range(2):
        above = below = 0.0
        for row, col in np.ndindex(3, 4):
            powers = [float(outputs[image, k, row, col].exp()) for k in range(2)]
            for k in range(2):
                t, w = float(truth[image, row, col] == k), float(weight[image, row, col])
                above += w * t * float(np.log(powers[k] / sum(powers)))
                below += w * t
        means.append(-above / below)
    assert float(found) == pytest.approx(sum(means) / 2, rel=1e-5)


def test_the_map_is_the_softmax_of_the_second_class() -> None:
    module = ProbabilityRecipe().exported(nn.Identity())
    raw = torch.tensor([[[[255.0]], [[127.5]]]])  # normalised: 0 and -1
    assert module(raw).item() == pytest.approx(np.exp(-1) / (1 + np.exp(-1)))


def test_candidates_hold_the_papers_range_and_argmax_alone() -> None:
    candidates = ProbabilityRecipe().candidates()
    assert candidates[0]["p1"] == 10.0  # Table III, FCN
    assert {6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0} <= {item["p1"] for item in candidates if item["split_touching"]}
    assert any(not item["split_touching"] for item in candidates)
    assert all("p2" not in item for item in candidates)  # one half, the default


@pytest.mark.parametrize(
    "bad",
    [
        *({"architecture": "alexnet"}, {"width": 0.0}, {"width": 1.5}, {"stem": 3}, {"n_feat": 0}, {"depth": 0}),
        *({"border_weight": -1.0}, {"border_weight": float("nan")}, {"border_weight": float("inf")}),
    ],
    ids=str,
)
def test_impossible_fields_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ProbabilityRecipe(**bad)  # type: ignore[arg-type]


def test_reach_of_layers_by_hand() -> None:
    three = Layer(3, padding=1)
    assert three.seen(5, 5) == (4, 6)
    assert Layer(2, 2).seen(3, 4) == (6, 9)
    assert [Layer(2, 2, up=True).seen(x, x) for x in (6, 7)] == [(3, 3), (3, 3)]
    assert [Layer(4, 2, 1, up=True).seen(x, x) for x in (6, 7)] == [(2, 3), (3, 4)]
    reaches = [receptive_radius([three] * count, 1) for count in range(4)]
    assert all(after - before == 1 for before, after in pairwise(reaches))
