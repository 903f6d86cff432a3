"""Batches of random patches: batch t of a seed is the same whenever and wherever it is drawn."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np

from nuclix.engine.training.augmentation import Augmentation, focus, sampling_grid, stain, warp
from nuclix.engine.training.contracts import AcceptsPatch, Annotated, BatchShape, BatchSource
from nuclix.engine.training.negatives import background, flakes, streaked
from nuclix.engine.training.targets import auxiliary_maps_of, targets_of

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Recipe

MAX_DRAWS = 20  # of one patch, where a recipe refuses patches
CONTEXT = 24  # px around a patch that its targets are computed with: a nucleus cut by the patch keeps its distances


class Sampler:
    """Draws batches from annotated images.

    Parameters
    ----------
    recipe : Recipe
        Makes the targets.
    images : sequence of Annotated
        What patches are cut from.
    augmentation : Augmentation
        How patches are varied.
    settings : BatchShape
        Size of a batch.
    seed : int
        Batches depend on it and on the step alone, so a resumed training sees what it would have seen.
    weights : sequence of float, optional
        How likely each image is, in any unit; without it every image is as likely as the other.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[Annotated],
        augmentation: Augmentation,
        settings: BatchShape,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        import torch

        self._recipe = recipe
        self._augmentation = augmentation
        self._settings = settings
        self._seed = seed
        self._images = [torch.from_numpy(np.array(item.image.transpose(2, 0, 1), order="C")) for item in images]
        # Labels, then the auxiliary maps; float32 holds 16 million.
        labels = [item.labels[None].astype(np.float32) for item in images]
        maps = [auxiliary_maps_of(recipe, item) for item in images]
        self._planes = [torch.from_numpy(np.concatenate(item)) for item in zip(labels, maps, strict=True)]
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return batch `step`: images (N, 3, S, S) float32 in 0..255 and targets (N, channels, S, S) float32."""
        import torch

        rng = torch.Generator().manual_seed(_seed_of(self._seed, step))
        count, settings = self._settings.batch, self._augmentation
        chosen = self._chosen(count, rng)
        draws = torch.rand(count, generator=rng)
        empty = draws < settings.background
        streaks = ~empty & (draws < settings.background + settings.streaks)
        grids = [self._accepted(index, streak, rng) for index, streak in zip(chosen, streaks.tolist(), strict=True)]
        inner = slice(CONTEXT, -CONTEXT)
        pairs = list(zip(chosen, grids, strict=True))
        images = torch.stack([warp(self._images[index], grid[inner, inner], "bilinear") for index, grid in pairs])
        images = stain(images, settings, rng)
        if streaks.any():
            images[streaks] = flakes(images[streaks], torch.stack(grids)[streaks][:, inner, inner], rng)
        if empty.any():
            images[empty] = background(int(empty.sum()), self._settings.patch, rng)
        images = focus(images, settings, rng)
        nuclei = (~(empty | streaks)).tolist()
        targets = [self._target(index, grid, here) for (index, grid), here in zip(pairs, nuclei, strict=True)]
        return images, torch.stack(targets)[:, :, inner, inner].contiguous()

    def _chosen(self, count: int, rng: torch.Generator) -> list[int]:
        import torch

        if self._weights is None:
            return [int(index) for index in torch.randint(len(self._images), (count,), generator=rng)]
        return [int(index) for index in torch.multinomial(self._weights, count, replacement=True, generator=rng)]

    def _target(self, index: int, grid: torch.Tensor, here: bool) -> torch.Tensor:
        """Return the target of a patch and its context; `here` says whether its nuclei are there to be seen."""
        import torch

        planes = warp(self._planes[index], grid, "nearest").numpy()
        return torch.from_numpy(targets_of(self._recipe, planes[0].astype(np.int32) * here, planes[1:] * here))

    def _accepted(self, index: int, streak: bool, rng: torch.Generator) -> torch.Tensor:
        """Draw a patch of an image until the recipe accepts it, or `MAX_DRAWS` times."""
        grid = self._grid(index, streak, rng)
        if not isinstance(self._recipe, AcceptsPatch):
            return grid
        for _ in range(MAX_DRAWS - 1):
            planes = warp(self._planes[index], grid[CONTEXT:-CONTEXT, CONTEXT:-CONTEXT], "nearest").numpy()
            if self._recipe.accepts(planes[0].astype(np.int32), planes[1:]):
                break
            grid = self._grid(index, streak, rng)
        return grid

    def _grid(self, index: int, streak: bool, rng: torch.Generator) -> torch.Tensor:
        image = self._images[index]
        shape = (int(image.shape[1]), int(image.shape[2]))
        grid = sampling_grid(shape, self._settings.patch, CONTEXT, self._augmentation, rng)
        return streaked(grid, rng) if streak else grid


def drawn_ahead(sampler: BatchSource, steps: Iterable[int], ahead: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of `steps`, up to `ahead` of them drawn early by another thread; 0 draws each when due."""
    if ahead == 0:
        yield from map(sampler.batch, steps)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[tuple[torch.Tensor, torch.Tensor]]] = deque()
        for step in steps:
            waiting.append(pool.submit(sampler.batch, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def loaded(source: BatchSource, steps: Sequence[int], workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of `steps` in order, drawn ahead by `workers` processes (PyTorch's `DataLoader`)."""
    from torch.utils.data import DataLoader, Dataset

    batches = cast("Dataset[tuple[torch.Tensor, torch.Tensor]]", _Batches(source))
    yield from DataLoader(batches, batch_size=None, sampler=steps, num_workers=workers)


class _Batches:
    """The batches of a source by step, as `DataLoader` asks for them."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._source.batch(step)


def _seed_of(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7])
