"""What every recipe must do; run `CHECKS` on your own, each with an instance of a small size.

>>> import pytest
>>> @pytest.mark.parametrize("check", CHECKS)
... def test_my_recipe(check):
...     check(MyRecipe(n_feat=4))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.training.contracts import (
    Annotated,
    AuxiliaryMaps,
    BatchShape,
    CustomLoss,
    CustomSampler,
    CustomSchedule,
    Recipe,
    SeesWholePatch,
)
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.targets import auxiliary_maps_of, targets_of
from nuclix.engine.training.unet import normalise

Check = Callable[[Recipe], None]
MIN_EDGE = 32  # px: the nuclei of smaller examples would be too small to be nuclei
MARGIN_TOLERANCE = 1e-4  # float32 kernels may choose another order of sums for another size of image


def example_labels(size: int) -> NDArray[np.int32]:
    """Return labels: a disc, a square that touches it, a nucleus cut by the edge, and background."""
    rows, cols = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    labels[(rows - size // 3) ** 2 + (cols - size // 3) ** 2 < (size // 6) ** 2] = 3
    labels[size // 3 : size // 2, size // 2 : size - 4] = 7
    labels[-4:, 2 : size // 2] = 12
    return labels


def example_images(recipe: Recipe, count: int = 1) -> torch.Tensor:
    """Return random normalised images of a size that the network takes."""
    multiple = recipe.patch.multiple
    size = max(2, -(-MIN_EDGE // multiple)) * multiple
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0)).float()


def example_photo(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Dark blue nuclei on a pink ground, with background in one corner."""
    rng = np.random.default_rng(0)
    image = np.where(labels[..., None] > 0, (90, 60, 140), (225, 170, 200)) + rng.normal(0, 8, (*labels.shape, 3))
    image[: labels.shape[0] // 4, : labels.shape[1] // 4] = 250
    return image.clip(0, 255).astype(np.uint8)


def renamed(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """`example_labels` by other names, in another order."""
    return np.choose(np.searchsorted([0, 3, 7, 12], labels), [0, 40, 2, 9]).astype(np.int32)


def example_targets(recipe: Recipe, size: int) -> torch.Tensor:
    """Return what training makes of an annotated image for this recipe, (1, channels, size, size)."""
    labels = example_labels(size)
    auxiliary = auxiliary_maps_of(recipe, Annotated("example", example_photo(labels), labels))
    return torch.from_numpy(targets_of(recipe, labels, auxiliary))[None]


def check_gradients(network: torch.nn.Module, loss: torch.Tensor) -> None:
    """Check that the loss is a number with gradients in every parameter that it reaches."""
    assert loss.shape == () and torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert any(gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients)
    assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


def calm(recipe: Recipe) -> torch.nn.Module:
    """Return a network from a fixed seed, in evaluation mode, whose batch norms have seen some images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = recipe.network()
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(normalise(example_images(recipe, 2)))
    return network.eval()


def check_protocol(recipe: Recipe) -> None:
    """Check scale, patch and maps."""
    assert isinstance(recipe, Recipe)
    assert isinstance(recipe.scale, Scale)
    assert isinstance(recipe.patch, PatchShape)
    assert recipe.maps and all(isinstance(name, str) and name for name in recipe.maps)
    assert len(set(recipe.maps)) == len(recipe.maps)


def check_parameters(recipe: Recipe) -> None:
    """Hyper-parameters are the fields of a frozen dataclass with defaults, and survive JSON."""
    assert dataclasses.is_dataclass(recipe)
    assert recipe.__dataclass_params__.frozen
    type(recipe)()
    assert from_mapping(type(recipe), json.loads(json.dumps(as_mapping(recipe))), "recipe") == recipe


def check_postprocessor(recipe: Recipe) -> None:
    """Check that the post-processor takes the recipe's maps and every candidate's parameters."""
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
    assert np.array_equal(recipe.targets(renamed(labels)), targets)
    labels.flags.writeable = False
    assert np.array_equal(recipe.targets(np.asfortranarray(labels)), targets)
    assert np.isfinite(recipe.targets(np.zeros((32, 32), np.int32))).all()
    assert np.isfinite(recipe.targets(np.ones((32, 32), np.int32))).all()


def check_guide(recipe: Recipe) -> None:
    """Check that auxiliary maps are finite float32 planes, depend on image and label partition, and change neither.

    Patches that show no nuclei (background, streaks) come with auxiliary maps of zeros, whatever the image was.
    """
    if not isinstance(recipe, AuxiliaryMaps):
        return
    labels = example_labels(64)
    image = example_photo(labels)
    for array in (labels, image):
        array.setflags(write=False)
    auxiliary = recipe.auxiliary_maps(image, labels)
    assert auxiliary.dtype == np.float32
    assert auxiliary.ndim == 3 and auxiliary.shape[1:] == labels.shape
    assert np.isfinite(auxiliary).all()
    assert np.array_equal(recipe.auxiliary_maps(np.asfortranarray(image), np.asfortranarray(labels)), auxiliary)
    assert np.array_equal(recipe.auxiliary_maps(image, renamed(labels)), auxiliary)
    auxiliary.setflags(write=False)
    targets = recipe.targets_with_auxiliary(labels, auxiliary)
    assert targets.dtype == np.float32
    assert targets.shape == recipe.targets(labels).shape
    assert np.isfinite(targets).all()
    assert np.array_equal(recipe.targets_with_auxiliary(renamed(labels), auxiliary), targets)
    assert np.array_equal(recipe.targets_with_auxiliary(labels[:, ::-1], auxiliary[:, :, ::-1])[:, :, ::-1], targets)
    for shade in (0, 255):
        plain = np.full((32, 32, 3), shade, np.uint8)
        for everywhere in (0, 1):
            same = np.full((32, 32), everywhere, np.int32)
            assert np.isfinite(recipe.targets_with_auxiliary(same, recipe.auxiliary_maps(plain, same))).all()
    assert np.isfinite(recipe.targets_with_auxiliary(np.zeros_like(labels), np.zeros_like(auxiliary))).all()


def check_objective(recipe: Recipe) -> None:
    """Check that a custom loss is a number with gradients."""
    if not isinstance(recipe, CustomLoss):
        return
    images = example_images(recipe)
    network = calm(recipe)
    check_gradients(network, recipe.objective()(network, normalise(images), example_targets(recipe, images.shape[-1])))


def check_batches(recipe: Recipe) -> None:
    """Batches of a recipe's own are a function of the seed and the step, in the shape that was asked for."""
    if not isinstance(recipe, CustomSampler):
        return
    size = 2 * recipe.patch.multiple
    labels = example_labels(4 * size)
    items = [Annotated(name, example_photo(labels), labels) for name in ("one", "two")]
    shape = BatchShape(2, size)
    images, targets = recipe.batches(items, shape, seed=5).batch(3)
    assert images.dtype == targets.dtype == torch.float32
    assert images.shape == (2, 3, size, size) and targets.shape[0] == 2
    assert float(images.min()) >= 0 and float(images.max()) <= 255
    again = recipe.batches(items, shape, seed=5)
    assert not torch.equal(again.batch(4)[0], images), "the step does not matter"
    assert torch.equal(again.batch(3)[0], images) and torch.equal(again.batch(3)[1], targets)
    assert not torch.equal(recipe.batches(items, shape, seed=6).batch(3)[0], images), "the seed does not matter"


def check_schedule(recipe: Recipe) -> None:
    """Training settings of a recipe's own are ones that there are."""
    if isinstance(recipe, CustomSchedule):
        schedule = from_mapping(Schedule, json.loads(json.dumps(as_plain(recipe.schedule()))), "schedule")
        assert schedule.patch % recipe.patch.multiple == 0


def as_plain(settings: Any) -> Any:
    """Return settings as nested dictionaries."""
    return {key: as_plain(value) if isinstance(value, Mapping) else value for key, value in settings.items()}


def check_network(recipe: Recipe) -> None:
    """Check that the network keeps the size, is fresh each time, and depends on torch's seed only."""
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
    """Check that the loss of raw outputs and targets is a number with gradients."""
    images = example_images(recipe)
    network = calm(recipe)
    check_gradients(network, recipe.loss()(network(normalise(images)), example_targets(recipe, images.shape[-1])))


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
    """Check that a pixel farther from the patch's edge than the margin does not depend on what lies beyond the edge.

    A recipe that says that it sees the whole patch is exempt: its answers still depend on nothing but the patch.
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
    check_guide,
    check_network,
    check_loss,
    check_objective,
    check_batches,
    check_schedule,
    check_exported,
    check_margin,
)
