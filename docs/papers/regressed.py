"""Print what DIST models have learned of the distance map: section V-B of their paper in numbers.

    python docs/papers/regressed.py DATA MODEL...

DATA is what `nuclix simulate` wrote; only its validation images are looked at. Prints a row of Markdown a model. R^2
inside nuclei takes the mean distance inside nuclei for nothing learned: a network that has learned where nuclei are,
and no distances, is at 0 or below. The last column reads the training's log: the first row from which on the training
loss stayed within a tenth (of its whole fall from predicting the mean) of the lowest; a row an epoch counts epochs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nuclix.engine.inference.model_file import load_model
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.validation import forward
from nuclix.plugins.recipes.dist import DistRecipe

HEAD = "| formulation | AJI | largest value (truth) | R^2 | R^2 inside nuclei | correlation inside | settled at |"
NEAR = 0.1  # of the whole fall of the loss


def main() -> None:
    """Parse, predict, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    images = load_dataset(args.data).validation
    lines = [HEAD, "| --- " * (HEAD.count("|") - 1) + "|"]
    for path in args.models:
        model = load_model(path)
        formulation = model.card.training["recipe"]["formulation"]
        recipe = DistRecipe(formulation=formulation)
        with torch.inference_mode():
            maps = [forward(model.module, item.image, model.card.patch.multiple)[0].numpy().ravel() for item in images]
        found, truth = np.concatenate(maps), np.concatenate([recipe.targets(item.labels).ravel() for item in images])
        inside = np.concatenate([item.labels.ravel() > 0 for item in images])
        with np.errstate(invalid="ignore"):
            together = np.corrcoef(found[inside], truth[inside])[0, 1]
        figures = (explained(found, truth), explained(found[inside], truth[inside]), together)
        aji = model.card.scores["validation"]["mean"]["aji"]
        epoch = settled(path.with_suffix(".training") / "training.csv", float(truth.var()))
        lines.append(
            f"| {formulation} | {aji:.3f} | {found.max():.3f} ({truth.max():.3f}) | "
            f"{' | '.join(f'{figure:.3f}' for figure in figures)} | {epoch} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def explained(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return R^2: 1 where all is found, 0 for the mean."""
    return 1 - float(np.square(found - truth).mean() / truth.var())


def settled(log: Path, start: float) -> int:
    """Return the number of the first row from which on the training loss stayed near its lowest."""
    with log.open(newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    limit = min(losses) + NEAR * (start - min(losses))
    far = [number for number, loss in enumerate(losses, 1) if loss > limit]
    return max(far, default=0) + 1


if __name__ == "__main__":
    main()
