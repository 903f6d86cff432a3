"""How good a network is on whole images that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.evaluation.scores import mean_of, object_counts, pixel_counts, segmentation_quality
from nuclix.engine.inference.patch_predictor import MIRRORS
from nuclix.engine.parameters import from_mapping
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.targets import auxiliary_maps_of, targets_of
from nuclix.ext.overlap import aji, overlap_table

if TYPE_CHECKING:
    import torch

    from nuclix.engine.contracts import PostProcessor
    from nuclix.engine.training.contracts import Recipe
    from nuclix.engine.training.execution import Execution

Network = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class ImageScores:
    """AJI (eq. 6 of the DIST paper), pixel F1 (eq. 5) and panoptic quality of an image, or their means."""

    aji: float
    f1: float
    pq: float


@dataclass(frozen=True, slots=True)
class Validation:
    """What a look at the validation images says: the mean loss and the mean scores."""

    loss: float
    scores: ImageScores


def forward(network: Network, image: NDArray[np.uint8], multiple: int) -> torch.Tensor:
    """Run a network on a whole image, mirrored at its lower and right edge up to the next multiple.

    Parameters
    ----------
    network : callable
        Takes (1, 3, H, W) RGB in 0..255, H and W multiples of `multiple`.
    image : (H, W, 3) uint8
        RGB.
    multiple : int
        The network's total down-sampling.

    Returns
    -------
    torch.Tensor
        (channels, H, W) float32, on the CPU.
    """
    import torch

    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="symmetric")
    batch = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
    return network(batch)[0, :, :height, :width].cpu()


def mirrored_mean(network: Network) -> Network:
    """Return a network that averages the maps of the four mirror images (test-time augmentation)."""
    import torch

    def averaged(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(batch.flip(axes)).flip(axes) for axes in ((), *MIRRORS)]).mean(0)

    return averaged


def label(postprocessor: PostProcessor, maps: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the (H, W) label image of whole (channels, H, W) maps."""
    return postprocessor.split(maps, postprocessor.foreground(maps))


def score_image(truth: NDArray[Any], prediction: NDArray[Any]) -> ImageScores:
    """Score an (H, W) label image against the truth."""
    table = overlap_table(truth, prediction)
    quality = object_counts(table).f1 * segmentation_quality(table)
    return ImageScores(aji(table), pixel_counts(table).f1, quality)


def make_postprocessor(recipe: Recipe, parameters: Mapping[str, Any]) -> PostProcessor:
    """Return the post-processor that the recipe is meant for, with these parameters."""
    kind: Any = registry.load(registry.POSTPROCESSORS, recipe.postprocessor)
    made: PostProcessor = from_mapping(kind, parameters, f"post-processor {recipe.postprocessor}")
    return made


def validate(recipe: Recipe, network: torch.nn.Module, images: Sequence[Annotated], execution: Execution) -> Validation:
    """Score a network with the recipe's post-processor and the first of its candidate parameters.

    Parameters
    ----------
    recipe : Recipe
        Method of the network.
    network : torch.nn.Module
        Takes normalised images.
    images : sequence of Annotated
        At least one.
    execution : Execution
        Device and precision.

    Returns
    -------
    Validation
        Means over the images.
    """
    import torch

    from nuclix.engine.training.unet import Exported

    postprocessor = make_postprocessor(recipe, recipe.candidates()[0])
    criterion = recipe.loss()
    raw = execution.inference(Exported(network, torch.nn.Identity()))
    finished = execution.inference(recipe.exported(network))
    losses, scores = [], []
    for item in images:
        outputs = forward(raw, item.image, recipe.patch.multiple)
        target = targets_of(recipe, item.labels, auxiliary_maps_of(recipe, item))
        losses.append(float(criterion(outputs[None], torch.from_numpy(target)[None])))
        maps = forward(finished, item.image, recipe.patch.multiple).numpy()
        scores.append(score_image(item.labels, label(postprocessor, maps)))
    return Validation(float(np.mean(losses)), mean_of(scores))
