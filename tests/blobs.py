"""Annotated images made up on the spot: dark discs on a pink ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.dataset import Dataset

GROUND = (225, 170, 200)
NUCLEUS = (90, 60, 140)


def blob_labels(shape: tuple[int, int], seed: int, count: int = 12) -> NDArray[np.int32]:
    """Discs of 4 to 10 px; later ones cover earlier ones."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        row, col, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(4, 10)
        labels[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = number
    return labels


def blobs(name: str, shape: tuple[int, int] = (96, 112), seed: int = 0) -> Annotated:
    labels = blob_labels(shape, seed)
    noise = np.random.default_rng(seed + 1).normal(0, 8, (*shape, 3))
    image = np.where(labels[..., None] > 0, NUCLEUS, GROUND) + noise
    return Annotated(name, image.clip(0, 255).astype(np.uint8), labels)


def blob_dataset() -> Dataset:
    return Dataset(tuple(blobs(f"t{seed}", seed=seed) for seed in range(3)), (blobs("v", seed=9),), "made up")


def write_folder(folder: Path, items: list[Annotated]) -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for item in items:
        Image.fromarray(item.image).save(folder / "images" / f"{item.name}.png")
        Image.fromarray(item.labels.astype(np.uint16)).save(folder / "labels" / f"{item.name}.png")
    return folder
