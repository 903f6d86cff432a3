"""The dummy data set of DIST's section V: true nuclei, each painted in one random colour, on a dark ground.

Naylor et al., IEEE TMI 38 (2019), Algorithm 1. A nucleus' place and shape are all that an image holds, so it shows
what a network can learn of distances at all.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import OutputError
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.splits import PARTS, SPLIT_FILE

MIN_NUCLEI = 5  # of a square: the emptiest image of the paper's data set has so many (section III-A)
CHANNELS = 3
MOST = 255


@dataclass(frozen=True, slots=True)
class Simulation:
    """The numbers of Algorithm 1.

    Attributes
    ----------
    dilation : int
        Radius (px) of the disc that nuclei are dilated with, so that more of them touch. The paper does not say it.
    colour : float
        mu: mean of a nucleus' colour in each channel, in grey levels.
    colour_sigma : float
        sigma_1: its standard deviation.
    nucleus_sigma : float
        sigma_2: of the noise inside nuclei.
    noise_sigma : float
        sigma_3: of the half-normal noise everywhere.
    """

    dilation: int = 3
    colour: float = 127.0
    colour_sigma: float = 100.0
    nucleus_sigma: float = 10.0
    noise_sigma: float = 5.0


def dilated(labels: NDArray[Any], radius: int) -> NDArray[np.int32]:
    """Return a label image whose nuclei are grown by a disc; where two meet, the larger label lies on top."""
    from scipy.ndimage import grey_dilation

    axis = np.arange(-radius, radius + 1)
    disc = axis[:, None] ** 2 + axis**2 <= radius**2
    return np.asarray(grey_dilation(labels.astype(np.int32), footprint=disc))


def simulate(labels: NDArray[np.int32], settings: Simulation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint an (H, W) label image as Algorithm 1 does (its lines 3 to 8), values outside 0..255 being cut off.

    Its line 1 labels connected components; here every nucleus has a label already, touching or not.

    Returns
    -------
    (H, W, 3) uint8
        The simulated image.
    """
    names, index = np.unique(labels, return_inverse=True)
    colours = rng.normal(settings.colour, settings.colour_sigma, (len(names), CHANNELS))
    shape = (*labels.shape, CHANNELS)
    nuclei = colours[index.reshape(labels.shape)] + rng.normal(0, settings.nucleus_sigma, shape)
    image = np.where(labels[..., None] > 0, nuclei, 0) + np.abs(rng.normal(0, settings.noise_sigma, shape))
    return np.rint(image.clip(0, MOST)).astype(np.uint8)


def squares(name: str, labels: NDArray[np.int32], edge: int) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Yield the squares of a label image, side by side, that hold enough nuclei, with names that say where they lie.

    An image smaller than a square is taken whole. Labels count from 1 in each square.
    """
    height, width = labels.shape
    for row in range(0, max(height - edge, 0) + 1, edge):
        for col in range(0, max(width - edge, 0) + 1, edge):
            square = labels[row : row + edge, col : col + edge]
            names, index = np.unique(np.append(square, 0), return_inverse=True)
            if len(names) > MIN_NUCLEI:
                yield f"{name}-{row}-{col}", index[:-1].reshape(square.shape).astype(np.int32)


def simulated(
    truths: Iterable[tuple[str, NDArray[np.int32]]], settings: Simulation, edge: int, seed: int
) -> list[Annotated]:
    """Return the simulated squares of some label images, in an order that depends on the seed.

    Parameters
    ----------
    truths : iterable of (str, (H, W) int32)
        Names and label images.
    settings : Simulation
        The numbers of Algorithm 1.
    edge : int
        Of a square, in pixels.
    seed : int
        Of everything random.
    """
    found = [item for name, labels in truths for item in squares(name, dilated(labels, settings.dilation), edge)]
    made = []
    for index in np.random.default_rng(seed).permutation(len(found)):
        name, labels = found[index]
        made.append(Annotated(name, simulate(labels, settings, np.random.default_rng((seed, int(index)))), labels))
    return made


def write_dataset(folder: Path, parts: Sequence[Sequence[Annotated]]) -> None:
    """Write images to train on and to validate on as ``nuclix train --data`` reads them, with their split.

    Parameters
    ----------
    folder : Path
        Takes images/, labels/ and split.csv; the first two must not be there yet.
    parts : two sequences of Annotated
        For train and validation.

    Raises
    ------
    OutputError
        If the folder can't be written, or holds a data set.
    """
    from PIL import Image

    try:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True)
        with (folder / SPLIT_FILE).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "split"])
            for part, items in zip(PARTS, parts, strict=True):
                rows.writerows([item.name, part] for item in items)
        for item in (item for items in parts for item in items):
            Image.fromarray(item.image).save(folder / "images" / f"{item.name}.png")
            Image.fromarray(item.labels.astype(np.uint16)).save(folder / "labels" / f"{item.name}.png")
    except FileExistsError as error:
        raise OutputError(f"{error.filename}: is there already; choose another folder") from error
    except OSError as error:
        raise OutputError(f"{folder}: can't be written ({error.strerror or error})") from error
