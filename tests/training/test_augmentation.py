"""Views of annotated images: what moves moves together, labels stay labels, and nothing varies when told so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blobs import blob_dataset, blob_labels, blobs
from nuclix.engine.training.augmentation import NONE, Augmentation, focus, sampling_grid, stain, warp
from nuclix.engine.training.contracts import BatchShape
from nuclix.engine.training.filters import blur
from nuclix.engine.training.negatives import streaked
from nuclix.engine.training.sampler import CONTEXT, Sampler, drawn_ahead
from nuclix.plugins.recipes.dist import DistRecipe

SHAPE = (96, 112)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**fields: float | bool) -> Augmentation:
    return dataclasses.replace(NONE, **fields)  # type: ignore[arg-type]


def labels_tensor(seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(blob_labels(SHAPE, seed))[None]


@given(st.integers(0, 10_000))
def test_without_variation_a_patch_is_a_crop(seed: int) -> None:
    image = torch.from_numpy(blobs("x", SHAPE).image).permute(2, 0, 1)
    grid = sampling_grid(SHAPE, 32, 0, NONE, rng(seed))
    top, left = (int(value) for value in grid[0, 0])
    assert 0 <= top <= SHAPE[0] - 32 and 0 <= left <= SHAPE[1] - 32
    crop = slice(top, top + 32), slice(left, left + 32)
    assert torch.allclose(warp(image, grid, "bilinear"), image[:, *crop].float(), atol=0.02)
    assert torch.equal(warp(labels_tensor(), grid, "nearest")[0].int(), labels_tensor()[0][crop].int())


def test_without_variation_nothing_looks_different() -> None:
    images = 255 * torch.rand(3, 3, 16, 16, generator=rng())
    before = images.clone()
    assert torch.equal(focus(stain(images, NONE, rng()), NONE, rng()), before)
    assert torch.equal(images, before)


@given(st.integers(0, 10_000))
def test_mirroring_is_one_of_the_eight_symmetries(seed: int) -> None:
    labels = labels_tensor()
    grid = sampling_grid(SHAPE, 40, 0, only(mirror=True), rng(seed))
    lows, highs = grid.amin((0, 1)).int(), grid.amax((0, 1)).int()
    crop = labels[0, lows[0] : highs[0] + 1, lows[1] : highs[1] + 1]
    turned = [torch.rot90(base, turns) for base in (crop, crop.T) for turns in range(4)]
    found = warp(labels, grid, "nearest")[0].int()
    assert any(torch.equal(found, candidate) for candidate in turned)


def test_all_eight_symmetries_come_up() -> None:
    corners = {
        tuple((grid[0, 0] - grid[-1, -1]).sign().tolist() + (grid[0, 0] - grid[0, -1]).sign().tolist())
        for grid in (sampling_grid(SHAPE, 8, 0, only(mirror=True), rng(seed)) for seed in range(100))
    }
    assert len(corners) == 8


@given(st.integers(0, 10_000))
def test_labels_stay_labels(seed: int) -> None:
    labels = labels_tensor()
    grid = sampling_grid(SHAPE, 64, 8, Augmentation(), rng(seed))
    found = warp(labels, grid, "nearest")
    assert torch.equal(found, found.round())
    assert set(found.unique().int().tolist()) <= set(labels.unique().tolist())


@given(st.integers(0, 10_000), st.sampled_from([(96, 112), (300, 200), (40, 40)]))
def test_patches_stay_inside_where_they_fit(seed: int, shape: tuple[int, int]) -> None:
    settings = dataclasses.replace(Augmentation(), elastic=0.0, scale=1.0)
    grid = sampling_grid(shape, 32, 0, settings, rng(seed))
    extent = torch.tensor(shape) - 1
    if min(shape) > 32 * 2**0.5:
        assert (grid >= -1e-3).all() and (grid <= extent + 1e-3).all()
    centre = grid.mean((0, 1))
    assert (centre >= 0).all() and (centre <= extent).all()


def test_image_and_labels_move_together() -> None:
    """An image that is painted from its labels is, after any warp, still painted from them (away from edges)."""
    labels = labels_tensor(7)
    image = (labels > 0).float().expand(3, -1, -1) * 100
    for seed in range(20):
        grid = sampling_grid(SHAPE, 64, 0, Augmentation(), rng(seed))
        seen, truth = warp(image, grid, "bilinear")[0], warp(labels, grid, "nearest")[0] > 0
        assert (seen[truth] >= 24).all() and (seen[~truth] <= 76).all()


def test_an_image_smaller_than_a_patch_is_mirrored() -> None:
    item = blobs("small", (20, 24))
    sampler = Sampler(DistRecipe(), [item], Augmentation(), BatchShape(2, 32), 0)
    images, targets = sampler.batch(0)
    assert images.shape == (2, 3, 32, 32) and targets.shape == (2, 1, 32, 32)
    assert torch.isfinite(images).all() and torch.isfinite(targets).all()


def test_targets_are_those_of_the_warped_labels() -> None:
    """Distances are made after the warp, with the ground around the patch, so a cut nucleus keeps its distances."""

    class Echo(DistRecipe):
        def targets(self, labels: np.ndarray) -> np.ndarray:
            seen.append(labels)
            return super().targets(labels)

    seen: list[np.ndarray] = []
    data = blob_dataset()
    settings = dataclasses.replace(Augmentation(), background=0.0, streaks=0.0)
    _, targets = Sampler(Echo(), data.train, settings, BatchShape(3, 48), 1).batch(5)
    for wide, target in zip(seen, targets, strict=True):
        assert wide.shape == (48 + 2 * CONTEXT,) * 2
        expected = DistRecipe().targets(wide)[:, CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]
        assert np.array_equal(target.numpy(), expected)


def test_zooming_in_makes_distances_longer() -> None:
    rows, cols = np.indices((128, 128))
    disc = ((rows - 64) ** 2 + (cols - 64) ** 2 < 20**2).astype(np.int32)
    half = torch.stack(torch.meshgrid(torch.arange(100.0), torch.arange(100.0), indexing="ij"), -1) / 2 + 39
    zoomed = warp(torch.from_numpy(disc)[None], half, "nearest")[0].int().numpy()
    recipe = DistRecipe()
    assert recipe.targets(zoomed).max() == pytest.approx(2 * recipe.targets(disc).max(), abs=2)


def test_stain_variation_keeps_range_and_varies_between_images() -> None:
    image = torch.from_numpy(blobs("x").image).permute(2, 0, 1).float()
    varied = stain(image.expand(6, -1, -1, -1), Augmentation(), rng())
    assert varied.shape == (6, 3, *image.shape[1:])
    assert float(varied.min()) >= 0 and float(varied.max()) <= 255
    means = varied.mean((2, 3))
    assert (torch.cdist(means, means) + 2 * torch.eye(6) > 1).all()


def test_stain_variation_of_strength_zero_inverts_itself() -> None:
    """Through optical density and back: nothing lost but rounding."""
    images = torch.arange(256.0).expand(1, 3, 4, 256)
    almost = dataclasses.replace(NONE, stain_gain=1e-9, brightness=1e-9)
    assert torch.allclose(stain(images, almost, rng()), images, atol=0.05)


def test_white_stays_light_when_stains_vary() -> None:
    white = torch.full((200, 3, 1, 1), 255.0)
    varied = stain(white, only(stain_gain=0.25, stain_turn=0.06), rng())
    assert float(varied.min()) > 250


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((1, 2, 40, 30)).astype(np.float32)
    found = blur(torch.from_numpy(image), torch.tensor([sigma]), torch.ones(1)).numpy()
    reach = int(np.ceil(2.5 * sigma))
    expected = ndimage.gaussian_filter(image, (0, 0, sigma, sigma), mode="nearest", truncate=reach / sigma)
    assert np.allclose(found, expected, atol=1e-5)


def test_sharpening_undoes_part_of_a_blur() -> None:
    image = torch.rand(1, 1, 32, 32, generator=rng())
    soft = blur(image, torch.tensor([1.0]), torch.ones(1))
    crisp = blur(soft, torch.tensor([1.0]), torch.tensor([-0.8]))
    assert float((crisp - image).abs().mean()) < float((soft - image).abs().mean())


def test_background_is_bright_and_has_no_nuclei() -> None:
    settings = dataclasses.replace(Augmentation(), background=1.0)
    images, targets = Sampler(DistRecipe(), blob_dataset().train, settings, BatchShape(4, 48), 0).batch(0)
    assert float(images.mean()) > 200
    assert float(targets.abs().max()) == 0


def test_streaks_have_no_nuclei() -> None:
    settings = only(streaks=1.0)
    images, targets = Sampler(DistRecipe(), blob_dataset().train, settings, BatchShape(4, 48), 0).batch(0)
    assert float(images.min()) >= 0 and float(images.max()) <= 255 and float(images.std()) > 5
    assert float(targets.abs().max()) == 0


def test_a_share_of_the_patches_is_glass_and_streaks() -> None:
    settings = only(background=0.3, streaks=0.2)
    nuclei = blobs("full")
    full = dataclasses.replace(nuclei, labels=np.ones_like(nuclei.labels))
    sampler = Sampler(DistRecipe(), [full], settings, BatchShape(50, 16), 0)
    empty = [float(target.max()) == 0 for step in range(6) for target in sampler.batch(step)[1]]
    assert np.mean(empty) == pytest.approx(0.5, abs=0.08)


def test_streaks_draw_a_nucleus_out() -> None:
    """A disc of 16 px becomes at least four times as long as it is wide, whichever way it is drawn out."""
    rows, cols = np.indices((400, 400))
    disc = torch.from_numpy(((rows - 200) ** 2 + (cols - 200) ** 2 < 64).astype(np.int32))[None]
    axis = torch.arange(256.0) + 72
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    longish = 0
    for seed in range(20):
        points = np.argwhere(warp(disc, streaked(grid, rng(seed)), "nearest")[0].numpy())
        if len(points) > 100:
            spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T.astype(float))))
            longish += int(spread[1] > 4 * spread[0])
    assert longish >= 8


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    data = blob_dataset()
    first, again = (Sampler(DistRecipe(), data.train, Augmentation(), BatchShape(2, 48), 3) for _ in range(2))
    other = Sampler(DistRecipe(), data.train, Augmentation(), BatchShape(2, 48), 4)
    first.batch(1)
    assert all(torch.equal(a, b) for a, b in zip(first.batch(7), again.batch(7), strict=True))
    assert not torch.equal(first.batch(7)[0], again.batch(8)[0])
    assert not torch.equal(first.batch(7)[0], other.batch(7)[0])


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_batches_drawn_ahead_are_the_same_in_the_same_order(ahead: int) -> None:
    sampler = Sampler(DistRecipe(), blob_dataset().train, Augmentation(), BatchShape(2, 32), 3)
    found = [images for images, _ in drawn_ahead(sampler, range(2, 7), ahead)]
    assert len(found) == 5
    assert all(torch.equal(images, sampler.batch(step)[0]) for step, images in enumerate(found, 2))


@given(st.integers(0, 10_000))
def test_shear_keeps_lines_parallel_and_stays_within_its_limit(seed: int) -> None:
    grid = sampling_grid((400, 400), 40, 0, only(shear=0.2), rng(seed))
    steps = torch.stack([grid[1, 0] - grid[0, 0], grid[0, 1] - grid[0, 0]])
    assert torch.allclose(grid[-1, -1] - grid[0, 0], 39 * steps.sum(0), atol=1e-2)
    assert torch.allclose(steps.diag(), torch.ones(2), atol=1e-4)
    assert (steps - torch.diag(steps.diag())).abs().max() <= 0.2 + 1e-4


def test_shuffled_channels_are_the_images_own() -> None:
    images = 255 * torch.rand(64, 3, 8, 8, generator=rng())
    shuffled = stain(images, only(channel_shuffle=1.0), rng(1))
    assert torch.equal(shuffled.sort(1).values, images.sort(1).values)
    orders = {tuple(int(order) for order in shuffled[i, :, 0, 0].argsort()) for i in range(64)}
    assert len(orders) == 6 and not torch.equal(shuffled, images)
    assert torch.equal(stain(images, only(channel_shuffle=1e-9), rng(1)), images)
