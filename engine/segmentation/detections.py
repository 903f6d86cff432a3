"""What a post-processor may say of each nucleus besides where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.contracts import PostProcessor
from nuclix.engine.errors import ModelError
from nuclix.engine.model_card import ModelCard
from nuclix.engine.parameters import from_mapping


@dataclass(frozen=True, slots=True)
class Detections:
    """Nuclei with what is known of each.

    Attributes
    ----------
    labels : (H, W) int32
        As `PostProcessor.split` returns them: 1..N without gaps.
    scores : (N,) float or None
        Detection probability of each label, 0..1; None where the mean of the score map is meant.
    classes : (N,) int or None
        Index of each label's class in the model's classes; None where all are of the first.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.floating[Any]] | None = None
    classes: NDArray[np.integer[Any]] | None = None


def make_postprocessor(card: ModelCard, where: str, tta: bool = False) -> PostProcessor:
    """Return the post-processor that a model's card names, with the card's parameters.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    where : str
        The model, for messages.
    tta : bool
        Whether maps are averaged over mirror images.

    Raises
    ------
    ModelError
        If a parameter does not fit, the post-processor takes other maps than the network gives, or mirror images of
        maps that hold directions would be averaged.
    PluginError
        If it can't be loaded.
    """
    kind: Any = registry.load(registry.POSTPROCESSORS, card.postprocessor)
    parameters = f"{where}: parameters of {card.postprocessor}"
    post: PostProcessor = from_mapping(kind, card.parameters, parameters, ModelError)
    if tuple(post.maps) != tuple(card.maps):
        raise ModelError(
            f"{where}: gives the maps {', '.join(card.maps)}; its post-processor {card.postprocessor} takes "
            f"{', '.join(post.maps)}: name them so, in this order (class maps go into class_maps)"
        )
    if tta and getattr(post, "has_directions", False):
        raise ModelError(
            f"{where}: the maps of {card.postprocessor} hold directions, which --tta would average over mirror images: "
            "run without it"
        )
    return post


@runtime_checkable
class DetectsObjects(Protocol):
    """A post-processor that gives each nucleus a score or a class, by the rule that `PostProcessor` states."""

    def detect(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> Detections:
        """Return what `split` returns, with scores or classes; it is called instead."""
        ...
