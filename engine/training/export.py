"""From a finished training to a model file with a card that says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.contracts import CalibratesScores, ModelCard, ObjectClass
from nuclix.engine.inference.model_file import check_weights, save_model
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.calibration import fit_curve, judged, reliability
from nuclix.engine.training.selection import Selection, choose_parameters, predict, score_parameters
from nuclix.engine.training.validation import make_postprocessor

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from nuclix.engine.training.contracts import Annotated, Recipe
    from nuclix.engine.training.dataset import Dataset
    from nuclix.engine.training.execution import Execution

NUCLEUS = ObjectClass("Nucleus", (0, 200, 120))
DIGITS = 4  # of the scores in a card


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a card says of where a model comes from.

    Attributes
    ----------
    name, method : str
        The model's and the recipe's.
    data, licence : str
        What it was trained on, and the licence of that.
    settings : mapping
        Of the training run.
    parameters : mapping
        The post-processor's, where no validation image chooses them; empty takes the recipe's first candidate.
    """

    name: str
    method: str
    data: str
    licence: str
    settings: dict[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def export(
    recipe: Recipe,
    network: torch.nn.Module,
    dataset: Dataset,
    execution: Execution,
    provenance: Provenance,
    path: Path,
) -> ModelCard:
    """Choose the post-processor's parameters, write the model file and return its card.

    Parameters
    ----------
    recipe : Recipe
        The method.
    network : torch.nn.Module
        The trained network (the moving average of its weights).
    dataset : Dataset
        Its validation images choose the parameters and give the scores; without any, `provenance` has the parameters.
    execution : Execution
        Device and precision of the predictions that are scored.
    provenance : Provenance
        What the card shall say of the training.
    path : Path
        The model file.

    Returns
    -------
    ModelCard
        What was written.

    Raises
    ------
    ModelError
        If the training has diverged.
    """
    check_weights(network)
    parameters, scores, calibration = _chosen(recipe, network, dataset, execution, provenance)
    card = ModelCard(
        name=provenance.name,
        method=provenance.method,
        scale=recipe.scale,
        patch=recipe.patch,
        maps=recipe.maps,
        postprocessor=recipe.postprocessor,
        parameters=parameters,
        classes=(NUCLEUS,),
        training={
            "data": provenance.data,
            "licence of the data": provenance.licence,
            "images": [item.name for item in dataset.train],
            "split": dataset.split,
            **(
                {"extra images": [item.name for item in dataset.extra], "share": dataset.share} if dataset.extra else {}
            ),
            "recipe": as_mapping(recipe),
            **provenance.settings,
            **calibration,
        },
        scores=scores,
    )
    save_model(path, recipe.exported(network), card)
    return card


def _chosen(
    recipe: Recipe, network: torch.nn.Module, dataset: Dataset, execution: Execution, provenance: Provenance
) -> tuple[Mapping[str, Any], dict[str, dict[str, dict[str, float]]], dict[str, Any]]:
    """Return the post-processor's parameters and, where images are held out, the scores that chose them.

    The last part says how good the detection scores are that were calibrated on the held-out images.
    """
    import torch

    images = dataset.validation
    if not images:
        given = provenance.parameters or recipe.candidates()[0]
        make_postprocessor(recipe, given)
        return given, {}, {}
    maps = predict(recipe, network, images, execution)
    chosen = choose_parameters(recipe, images, maps, torch.get_num_threads())
    parameters, calibration = _calibrated(recipe, images, maps, chosen.parameters)
    maps = predict(recipe, network, images, execution, mirrored=True)
    mirrored = score_parameters(recipe, images, maps, chosen.parameters)
    scores = {"validation": _rows(chosen), "validation, four mirror images averaged": _rows(mirrored)}
    return parameters, scores, calibration


def _calibrated(
    recipe: Recipe, images: Sequence[Annotated], maps: Sequence[NDArray[np.float32]], parameters: Mapping[str, Any]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the parameters with calibrated scores, and how good those are, each image judged by the others."""
    items = judged(recipe, images, maps, parameters)
    curve = fit_curve(items)
    processor = make_postprocessor(recipe, parameters)
    if curve is None or not isinstance(processor, CalibratesScores):
        return parameters, {}
    points = ([round(float(value), DIGITS) for value in part] for part in (curve.raw, curve.probability))
    found = reliability(items)
    return {**parameters, **processor.calibrated(*points)}, {"calibrated scores": as_mapping(found)} if found else {}


def _rows(selection: Selection) -> dict[str, dict[str, float]]:
    rows = {"mean": selection.mean, **selection.by_image}
    return {name: {key: round(value, DIGITS) for key, value in as_mapping(row).items()} for name, row in rows.items()}
