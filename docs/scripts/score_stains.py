"""Score the networks of docs/experiments/stain.toml on their held-out images, with and without stain normalisation.

    nuclix experiment docs/experiments/stain.toml --data kumar16 --out stain
    python docs/scripts/score_stains.py stain --data kumar16

Every image is scored as it is and in another stain (`shifted`), each without normalisation, with Reinhard's and with
Macenko's. The target is measured on the fold's own training images, the parameters of the post-processor are those that
are best on the other folds. Prints a table: mean AJI, mean difference from no normalisation, and the exact two-sided
p-value of the Wilcoxon signed-rank test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.evaluation.wilcoxon import signed_rank_test
from nuclix.engine.parameters import from_mapping
from nuclix.engine.slide.normalise import StainProfile, stain_normaliser, stain_profile
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.dataset import load_images
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.experiment import RECORD, Bench, Cell, cells, folds_of
from nuclix.engine.training.experiment_file import postprocessor_kind, read_experiment, recipe_of
from nuclix.engine.training.selection import predict
from nuclix.engine.training.state import load_average
from nuclix.engine.training.validation import label, score_image
from nuclix.ext.stains import optical_density

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "stain.toml"
METHODS = ("none", "reinhard", "macenko")
STAINS = ("as it is", "shifted")
SAMPLE = 4  # every fourth pixel of an image's rows and columns is enough for its statistics
BLUER = np.array([0.70, 0.66, 0.27])  # optical densities of the other hematoxylin
AMOUNTS = np.array([0.65, 1.5])  # of hematoxylin and eosin, against those that the image has

Pixels = NDArray[np.uint8]


def main() -> None:
    """Score the folds that are trained, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    experiment = read_experiment(EXPERIMENT)
    recipe = recipe_of(experiment.networks[0], EXPERIMENT)
    images = load_images(args.data, recipe.scale.mpp, [])
    fold_of = folds_of(experiment, Bench(EXPERIMENT, args.data, args.out), [item.name for item in images])
    finished = [cell for cell in cells(experiment, experiment.folds) if (cell.folder(args.out) / RECORD).exists()]
    records = {cell.fold: json.loads((cell.folder(args.out) / RECORD).read_text()) for cell in finished}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for cell in finished:
        held_out = [item for item in images if fold_of[item.name] == cell.fold]
        target = profile_of([item.image for item in images if fold_of[item.name] != cell.fold])
        way = experiment.networks[0].ways[0]
        others = {fold: record for fold, record in records.items() if fold != cell.fold}
        kind = postprocessor_kind(way, recipe, EXPERIMENT)
        processor = from_mapping(kind, best_parameters(others, way.name), way.name)
        scored = scores_of(cell, args.out, recipe, processor, (held_out, target))
        for key, scores in scored.items():
            found.setdefault(key, {}).update(scores)
        print_table(found)


def profile_of(images: list[Pixels]) -> StainProfile:
    """Return the stain of several images together."""
    return stain_profile(np.concatenate([image[::SAMPLE, ::SAMPLE].reshape(-1, 3) for image in images]))


def shifted(image: Pixels) -> Pixels:
    """Return an image in another stain: a bluer hematoxylin, a third weaker, and half as much eosin again."""
    own = profile_of([image]).vectors
    other = np.stack([BLUER / np.linalg.norm(BLUER), own[1]])
    density = optical_density()[image]
    amounts = density @ np.linalg.pinv(own)
    rest = density - amounts @ own
    light = 255 * 10 ** -((amounts * AMOUNTS) @ other + rest)
    return np.rint(np.clip(light, 0, 255)).astype(np.uint8)


def best_parameters(records: Mapping[int, Any], way: str) -> Mapping[str, Any]:
    """Return the parameters with the largest mean AJI over the images of some folds."""
    aji = [
        [row["aji"] for row in rows] for record in records.values() for rows in record["ways"][way]["scores"].values()
    ]
    parameters = next(iter(records.values()))["ways"][way]["parameters"]
    best: Mapping[str, Any] = parameters[int(np.mean(aji, axis=0).argmax())]
    return best


def scores_of(
    cell: Cell, out: Path, recipe: Any, processor: Any, data: tuple[list[Annotated], StainProfile]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the AJI of each held-out image by stain and method."""
    held_out, target = data
    network = recipe.network()
    load_average(network, cell.folder(out) / "checkpoint.pt")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for stain, change in zip(STAINS, (lambda image: image, shifted), strict=True):
        stained = [replace(item, image=change(item.image)) for item in held_out]
        for method in METHODS:
            given = [replace(item, image=normalised(item.image, method, target)) for item in stained]
            maps = predict(recipe, network, given, Execution.of("cpu", "auto"))
            found[stain, method] = {
                item.name: score_image(item.labels, label(processor, map_of)).aji
                for item, map_of in zip(given, maps, strict=True)
            }
    return found


def normalised(image: Pixels, method: str, target: StainProfile) -> Pixels:
    """Return an image in the target's stain, with the image's own statistics; unchanged for "none"."""
    change: Callable[[Pixels], Pixels]
    change = (lambda it: it) if method == METHODS[0] else stain_normaliser(method, profile_of([image]), target)
    return change(image)


def print_table(found: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
    """Print means, differences and p-values as a Markdown table."""
    print(f"\n{len(next(iter(found.values())))} images\n\n| stain | normalised | AJI | difference | better on | p |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (stain, method), scores in found.items():
        usual = found[stain, METHODS[0]]
        differences = np.array([scores[name] - usual[name] for name in scores])
        p = min(1.0, 2 * min(signed_rank_test(differences), signed_rank_test(-differences)))
        mean = np.mean(list(scores.values()))
        print(f"| {stain} | {method} | {mean:.3f} | {differences.mean():+.3f} | {(differences > 0).sum()} | {p:.2g} |")


if __name__ == "__main__":
    main()
