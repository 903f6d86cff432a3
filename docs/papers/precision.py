"""Compare the nuclei of a model in several number formats, on annotated images.

    python docs/papers/precision.py dist-kumar16 kumar16 --split plugins/recipes/kumar16.csv --precisions float32,int8
    python docs/papers/precision.py dist-kumar16 dsb2018 --names "he_*" --as-they-are --precisions float32,int8

The first format is the one that the others are compared with: nuclei without a partner of IoU > 0.5 (lost), and those whose
partner's IoU is at most 0.9 (changed). Patches and margin are those of the card. Images are brought to the model's scale where
theirs is known, except with --as-they-are.
"""  # noqa: E501

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from nuclix.engine.bench.margins import MATCHED, SAME, Picture, mirrored, stitched_maps
from nuclix.engine.inference.model_file import find_model, read_card
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.preparation import open_network, post_processor
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.splits import SplitOptions
from nuclix.engine.training.validation import label, score_image
from nuclix.ext.overlap import overlap_table


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="installed model or model file")
    parser.add_argument("data", type=Path, help="folder with images/ and labels/; its validation images are used")
    parser.add_argument("--split", type=Path, help="CSV")
    parser.add_argument("--names", default="*", help="shell pattern of the images to use")
    parser.add_argument("--as-they-are", action="store_true", help="whatever the images' scale")
    parser.add_argument("--precisions", default="float32,int8")
    parser.add_argument("--runtime", default="openvino")
    args = parser.parse_args()
    path = find_model(args.model)
    card = read_card(path)
    post = post_processor(card, RunConfig(), args.model)
    images = load_dataset(args.data, SplitOptions(args.split), None if args.as_they_are else card.scale.mpp).validation
    images = tuple(item for item in images if fnmatchcase(item.name, args.names))
    reference: list[Any] = []
    print(f"{len(images)} images\nprecision       AJI      F1      PQ  nuclei    lost changed  mean difference of maps")
    for precision in args.precisions.split(","):
        config = RunConfig(model=args.model, runtime=args.runtime, precision=precision, device="cpu")
        predictor = open_network(path, config).predictor
        found, scores, apart = [], [], []
        for index, item in enumerate(images):
            picture = Picture(item.name, item.image.shape[:2], mirrored(item.image))
            maps = stitched_maps(predictor, picture)[: len(post.maps)]
            labels = label(post, maps)
            found.append((maps, labels))
            scores.append(score_image(item.labels, labels))
            apart.append(np.abs(maps - reference[index][0]).mean() if reference else 0.0)
        reference = reference or found
        lost, changed, count = differences(reference, found)
        means = [np.mean([getattr(score, name) for score in scores]) for name in ("aji", "f1", "pq")]
        rows = "  ".join(f"{mean:.4f}" for mean in means)
        print(f"{precision:<12} {rows}  {count:>6}  {lost:>6}  {changed:>6}  {np.mean(apart):.4f}", flush=True)


def differences(expected: list[Any], found: list[Any]) -> tuple[int, int, int]:
    """Return the numbers of nuclei that are lost, those that are changed, and all."""
    lost = changed = count = 0
    for (_, truth), (_, labels) in zip(expected, found, strict=True):
        table = overlap_table(truth, labels)
        matched = int((table.iou > MATCHED).sum())
        lost += len(table.truth_labels) + len(table.prediction_labels) - 2 * matched
        changed += int(((table.iou > MATCHED) & (table.iou <= SAME)).sum())
        count += len(table.prediction_labels)
    return lost, changed, count


if __name__ == "__main__":
    main()
