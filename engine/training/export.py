"""From a finished training to a model file with a card that says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.contracts import ModelCard, ObjectClass
from nuclix.engine.inference.model_file import save_model
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.selection import Selection, choose_parameters, predict, score_parameters

if TYPE_CHECKING:
    import torch

    from nuclix.engine.contracts import Recipe
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
        Of the training.
    """

    name: str
    method: str
    data: str
    licence: str
    settings: dict[str, Any]


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
        Its validation images choose the parameters and give the scores.
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
    """
    import torch

    images = dataset.validation
    chosen = choose_parameters(recipe, images, predict(recipe, network, images, execution), torch.get_num_threads())
    mirrored = score_parameters(
        recipe, images, predict(recipe, network, images, execution, mirrored=True), chosen.parameters
    )
    card = ModelCard(
        name=provenance.name,
        method=provenance.method,
        scale=recipe.scale,
        patch=recipe.patch,
        maps=recipe.maps,
        postprocessor=recipe.postprocessor,
        parameters=chosen.parameters,
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
        },
        scores={"validation": _rows(chosen), "validation, four mirror images averaged": _rows(mirrored)},
    )
    save_model(path, recipe.exported(network), card)
    return card


def _rows(selection: Selection) -> dict[str, dict[str, float]]:
    rows = {"mean": selection.mean, **selection.by_image}
    return {name: {key: round(value, DIGITS) for key, value in as_mapping(row).items()} for name, row in rows.items()}
