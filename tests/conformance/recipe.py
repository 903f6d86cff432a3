"""What every recipe must do; run `CHECKS` on your own, each with an instance of a small size.

>>> import pytest
>>> @pytest.mark.parametrize("check", CHECKS)
... def test_my_recipe(check):
...     check(MyRecipe(n_feat=4))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.contracts import PatchShape, Recipe, SeesWholePatch
from nuclix.engine.geometry import Scale
from nuclix.engine.networks import normalise
from nuclix.engine.parameters import as_mapping, from_mapping

Check = Callable[[Recipe], None]
MARGIN_TOLERANCE = 1e-4  # float32 kernels may choose another order of sums for another size of image


def example_labels(size: int) -> NDArray[np.int32]:
    """A disc, a square that touches it, a nucleus cut by the edge, and ground."""
    rows, cols = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    labels[(rows - size // 3) ** 2 + (cols - size // 3) ** 2 < (size // 6) ** 2] = 3
    labels[size // 3 : size // 2, size // 2 : size - 4] = 7
    labels[-4:, 2 : size // 2] = 12
    return labels


def example_images(recipe: Recipe, count: int = 1) -> torch.Tensor:
    size = 2 * recipe.patch.multiple
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0)).float()


def calm(recipe: Recipe) -> torch.nn.Module:
    """A network from a fixed seed, in evaluation mode, whose batch norms have seen some images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = recipe.network()
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(normalise(example_images(recipe, 2)))
    return network.eval()


def check_protocol(recipe: Recipe) -> None:
    assert isinstance(recipe, Recipe)
    assert isinstance(recipe.scale, Scale)
    assert isinstance(recipe.patch, PatchShape)
    assert recipe.maps and all(isinstance(name, str) and name for name in recipe.maps)
    assert len(set(recipe.maps)) == len(recipe.maps)


def check_parameters(recipe: Recipe) -> None:
    """Hyper-parameters are the fields of a frozen dataclass with defaults, and survive JSON."""
    assert dataclasses.is_dataclass(recipe)
    assert recipe.__dataclass_params__.frozen  # type: ignore[attr-defined]
    type(recipe)()
    assert from_mapping(type(recipe), json.loads(json.dumps(as_mapping(recipe))), "recipe") == recipe


def check_postprocessor(recipe: Recipe) -> None:
    """The post-processor takes the recipe's maps and every candidate's parameters."""
    kind: Any = registry.load(registry.POSTPROCESSORS, recipe.postprocessor)
    assert kind.maps == recipe.maps
    candidates = recipe.candidates()
    assert candidates
    made = {from_mapping(kind, candidate, "candidate") for candidate in candidates}
    assert len(made) == len(candidates), "two candidates are the same"
    assert json.loads(json.dumps(candidates)) == [dict(item) for item in candidates]


def check_targets(recipe: Recipe) -> None:
    """Targets are float32, one channel an output, a function of the labels' partition, and leave the labels alone."""
    labels = example_labels(64)
    before = labels.copy()
    targets = recipe.targets(labels)
    assert targets.dtype == np.float32
    assert targets.ndim == 3 and targets.shape[1:] == labels.shape
    assert np.isfinite(targets).all()
    assert np.array_equal(labels, before)
    assert np.array_equal(recipe.targets(labels), targets)
    renamed = np.choose(np.searchsorted([0, 3, 7, 12], labels), [0, 40, 2, 9]).astype(np.int32)
    assert np.array_equal(recipe.targets(renamed), targets)
    labels.flags.writeable = False
    assert np.array_equal(recipe.targets(np.asfortranarray(labels)), targets)
    assert np.isfinite(recipe.targets(np.zeros((32, 32), np.int32))).all()
    assert np.isfinite(recipe.targets(np.ones((32, 32), np.int32))).all()


def check_network(recipe: Recipe) -> None:
    """The network keeps the size, is fresh each time, and is a function of torch's seed."""
    states = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            states.append(recipe.network().state_dict())
    assert all(torch.equal(first, second) for first, second in zip(states[0].values(), states[1].values(), strict=True))
    assert any(
        not torch.equal(first, second) for first, second in zip(states[0].values(), states[2].values(), strict=True)
    )
    images = example_images(recipe, 2)
    with torch.no_grad():
        outputs = calm(recipe)(normalise(images))
    assert outputs.shape[0] == 2 and outputs.shape[2:] == images.shape[2:]


def check_loss(recipe: Recipe) -> None:
    """The loss of raw outputs and targets is a number that training can follow down."""
    images = example_images(recipe)
    targets = torch.from_numpy(recipe.targets(example_labels(images.shape[-1])))[None]
    network = calm(recipe)
    loss = recipe.loss()(network(normalise(images)), targets)
    assert loss.shape == () and torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert any(gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients)
    assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


def check_exported(recipe: Recipe) -> None:
    """RGB in 0..255 goes in as uint8 or float, float32 maps come out, alike for both."""
    images = example_images(recipe, 2)
    module = recipe.exported(calm(recipe)).eval()
    with torch.inference_mode():
        maps, of_bytes = module(images), module(images.to(torch.uint8))
    assert maps.shape == (2, len(recipe.maps), *images.shape[2:])
    assert maps.dtype == torch.float32
    assert torch.equal(maps, of_bytes)


def check_margin(recipe: Recipe) -> None:
    """A pixel farther from the patch's edge than the margin does not know where the patch ends, nor what lies beyond.

    A recipe that says that it sees the whole patch is let off: its answers still depend on nothing but the patch.
    """
    patch = recipe.patch
    size = 2 * patch.margin + 2 * patch.multiple
    rng = torch.Generator().manual_seed(0)
    whole = torch.zeros(1, 3, size + 4 * patch.multiple, size + 2 * patch.multiple)  # black: a patch's edge looks white
    module = recipe.exported(calm(recipe)).eval()
    top, left = 2 * patch.multiple, patch.multiple
    here = (..., slice(top, top + size), slice(left, left + size))
    whole[here] = torch.randint(0, 256, (1, 3, size, size), generator=rng).float()
    inner = slice(patch.margin, size - patch.margin)
    with torch.inference_mode():
        part = module(whole[here])
        if isinstance(recipe, SeesWholePatch) and recipe.sees_whole_patch:
            inside = module(torch.cat([torch.zeros_like(whole[here]), whole[here]]))[1:]
        else:
            inside = module(whole)[here]
    scale = float(inside.abs().max()) or 1.0
    assert float((part - inside)[:, :, inner, inner].abs().max()) <= MARGIN_TOLERANCE * max(scale, 1.0)


CHECKS: tuple[Check, ...] = (
    check_protocol,
    check_parameters,
    check_postprocessor,
    check_targets,
    check_network,
    check_loss,
    check_exported,
    check_margin,
)
