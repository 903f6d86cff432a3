"""Score a model file on the images of a folder that it was not trained on, with other post-processing if you like.

    python docs/papers/rescore.py MODEL DATA [--set NAME=VALUE ...] [--out DIR]

DATA has images/ and labels/ in it. Without --set the post-processor has the parameters of the model's card. Prints a
line of Markdown for each image and the mean: accuracy, pixel F1, Perf, AJI, PQ, mAP (see ../metrics.md). Images are
predicted whole, mirrored up to a multiple of the network's down-sampling; --out keeps the label images, for `nuclix
evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nuclix.engine import registry
from nuclix.engine.evaluation.scores import score
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.parameters import assignments, from_mapping
from nuclix.engine.training.dataset import load_annotated
from nuclix.engine.training.validation import forward, label

SHOWN = ("accuracy", "f1", "perf", "aji", "pq", "mean_ap")


def main() -> None:
    """Parse, predict, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for label images")
    args = parser.parse_args()
    model = load_model(args.model)
    kind: Any = registry.load(registry.POSTPROCESSORS, model.card.postprocessor)
    parameters = {**model.card.parameters, **assignments(args.set, kind, model.card.postprocessor)}
    processor = from_mapping(kind, parameters, "--set")
    said = ", ".join(f"{item.name} = {getattr(processor, item.name)}" for item in fields(kind))
    lines = [f"{args.model.name}: {said}", "", f"| image | {' | '.join(SHOWN)} |", f"| --- {'| --- ' * len(SHOWN)}|"]
    rows = []
    for path in sorted((args.data / "images").iterdir()):
        if path.stem in model.card.training["images"]:
            continue
        item = load_annotated(path, args.data / "labels" / f"{path.stem}.png")
        with torch.inference_mode():
            maps = forward(model.module, item.image, model.card.patch.multiple).numpy()
        labels = label(processor, maps)
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint16)).save(args.out / f"{path.stem}.png")
        found = score(item.labels, labels)
        rows.append([getattr(found, name) for name in SHOWN])
        lines.append(line(path.stem, rows[-1]))
    lines.append(line("mean", np.mean(rows, axis=0).tolist()))
    sys.stdout.write("\n".join(lines) + "\n")


def line(name: str, values: list[float]) -> str:
    """Return a row of the table."""
    return f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |"


if __name__ == "__main__":
    main()
