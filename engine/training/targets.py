"""What a network is to learn from an annotated patch, for every kind of recipe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.training.contracts import Annotated, AuxiliaryMaps, Recipe

NO_PLANES = 0


def auxiliary_maps_of(recipe: Recipe, item: Annotated) -> NDArray[np.float32]:
    """Return the (planes, H, W) auxiliary maps that a recipe makes of an image; no planes where it makes none."""
    if isinstance(recipe, AuxiliaryMaps):
        return recipe.auxiliary_maps(item.image, item.labels)
    return np.empty((NO_PLANES, *item.labels.shape), np.float32)


def targets_of(recipe: Recipe, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (channels, H, W) target of a patch.

    Parameters
    ----------
    recipe : Recipe
        Says what its network learns.
    labels : (H, W) int32
        Label image of the patch.
    auxiliary : (planes, H, W) float32
        What `auxiliary_maps_of` made of the image, warped like the labels.
    """
    if isinstance(recipe, AuxiliaryMaps):
        return recipe.targets_with_auxiliary(labels, auxiliary)
    return recipe.targets(labels)
