"""The post-processor's parameters that suit a network best, chosen on the validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.evaluation.scores import mean_of
from nuclix.engine.training.validation import (
    ImageScores,
    forward,
    label,
    make_postprocessor,
    mirrored_mean,
    score_image,
)

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Annotated, Recipe
    from nuclix.engine.training.execution import Execution


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen parameters and how every image scores with them.

    Attributes
    ----------
    parameters : mapping
        Of the post-processor.
    mean : ImageScores
        Means over the images.
    by_image : mapping of str to ImageScores
        Image name to scores.
    """

    parameters: Mapping[str, Any]
    mean: ImageScores
    by_image: Mapping[str, ImageScores]


def predict(
    recipe: Recipe, network: torch.nn.Module, images: Sequence[Annotated], execution: Execution, mirrored: bool = False
) -> list[NDArray[np.float32]]:
    """Return the (channels, H, W) maps of whole images; `mirrored` averages those of their four mirror images."""
    run = execution.inference(recipe.exported(network))
    run = mirrored_mean(run) if mirrored else run
    return [forward(run, item.image, recipe.patch.multiple).numpy() for item in images]


def score_parameters(
    recipe: Recipe, images: Sequence[Annotated], maps: Sequence[NDArray[np.float32]], parameters: Mapping[str, Any]
) -> Selection:
    """Score one set of the post-processor's parameters on maps that were predicted before."""
    postprocessor = make_postprocessor(recipe, parameters)
    scores = [score_image(item.labels, label(postprocessor, it)) for item, it in zip(images, maps, strict=True)]
    return Selection(parameters, mean_of(scores), dict(zip((item.name for item in images), scores, strict=True)))


def choose_parameters(
    recipe: Recipe, images: Sequence[Annotated], maps: Sequence[NDArray[np.float32]], threads: int = 1
) -> Selection:
    """Take the recipe's candidate with the largest mean AJI (DIST paper, section VI-C).

    Parameters
    ----------
    recipe : Recipe
        Says the candidates.
    images : sequence of Annotated
        The validation images.
    maps : sequence of (channels, H, W) float32
        Their predicted maps.
    threads : int
        The kernels let go of the interpreter, so threads help.

    Returns
    -------
    Selection
        The best; of equals the first.
    """
    with ThreadPoolExecutor(threads) as pool:
        scored = list(
            pool.map(lambda parameters: score_parameters(recipe, images, maps, parameters), recipe.candidates())
        )
    return max(scored, key=lambda selection: selection.mean.aji)
