"""Write the model file of `dist-kumar16` from the checkpoint of a training on all images.

    python docs/papers/release.py kumar16 dsb2018 v3.training/checkpoint.pt v3.pt --held-out fold.training/checkpoint.pt --out dist-kumar16.pt
    python docs/papers/release.py kumar16 dsb2018 v3.training/checkpoint.pt v3.pt --earlier v2.pt --out dist-kumar16.pt

The card is that of `v3.pt`, which `nuclix train --train-on-all` wrote. Its scores are those of a network that did not see the
validation images, trained in the same way on the others, whose detection scores are calibrated too (both may come from the card
of an earlier version); and those of the model itself on the H&E images of whole fields of dsb2018 that it was not trained on.
Weights are rounded to bfloat16, in which CPUs compute with them, and the file is compressed: half the size.

The network for OpenVINO is added last, from the finished file:

    nuclix pack dist-kumar16.pt --add openvino --int8 --calibration KUMAR16_TRAINING_IMAGES --out packed.pt
    python docs/papers/precision.py packed.pt dsb2018 --names "he_*" --as-they-are

Calibration images: those of kumar16's training part at 0.25 um/px (plugins/recipes/kumar16.csv).
"""  # noqa: E501

from __future__ import annotations

import argparse
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from calibrate import DIGITS

from nuclix.engine.inference.batch_norm import fold_batch_norm
from nuclix.engine.inference.model_file import load_model, read_card, save_model
from nuclix.engine.model_card import ModelCard
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.calibration import fit_curve, judged, reliability
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.selection import predict, score_parameters
from nuclix.engine.training.splits import SplitOptions
from nuclix.engine.training.state import load_average
from nuclix.engine.training.validation import make_postprocessor
from nuclix.plugins.recipes.dist import DistRecipe

RECIPE = DistRecipe(root=True, auxiliary=0.5, centre=0.5, border=3, n_feat_inner=80)
EXECUTION = Execution.of("cpu", "auto")
VALIDATED = "validation, by a network trained in the same way without these images"


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("other", type=Path, help="folder of dsb2018, with groups.csv")
    parser.add_argument("checkpoint", type=Path, help="of the training on all images")
    parser.add_argument("trained", type=Path, help="model file of the training on all images")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--held-out", type=Path, help="checkpoint of a training without the validation images")
    source.add_argument("--earlier", type=Path, help="earlier version whose validation and score calibration stay")
    parser.add_argument("--split", type=Path, default=Path("plugins/recipes/kumar16.csv"), help="CSV (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the model file to write")
    args = parser.parse_args()
    card = load_model(args.trained).card
    found = calibrated(card, args) if args.held_out else inherited(card, read_card(args.earlier))
    network = averaged(args.checkpoint)
    others = [item for item in load_dataset(args.other).validation if item.name.startswith("he_")]
    maps = predict(RECIPE, network, others, EXECUTION)
    held_out = {"mean": rows(others, maps, found.parameters)["mean"]}
    if (judgement := reliability(judged(RECIPE, others, maps, found.parameters))) is not None:
        print("detection scores on the held-out H&E images of dsb2018:", as_mapping(judgement))
    scores = {**found.scores, "held-out H&E images of dsb2018": held_out}
    save_model(args.out, rounded(RECIPE.exported(network)), replace(found, scores=scores, name=args.out.stem))
    compress(args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes, {held_out}")


def calibrated(card: ModelCard, args: argparse.Namespace) -> ModelCard:
    """Return the card with the scores and the calibration of a network that did not see the validation images."""
    images = load_dataset(args.data, SplitOptions(args.split), RECIPE.scale.mpp).validation
    maps = predict(RECIPE, averaged(args.held_out), images, EXECUTION)
    items = judged(RECIPE, images, maps, card.parameters)
    curve, found = fit_curve(items), reliability(items)
    if curve is None or found is None:
        raise SystemExit("too few nuclei to calibrate on")
    points = ([round(float(value), DIGITS) for value in part] for part in (curve.raw, curve.probability))
    parameters = {**card.parameters, **make_postprocessor(RECIPE, card.parameters).calibrated(*points)}
    training = {**card.training, "calibrated scores": as_mapping(found)}
    return replace(
        card, parameters=parameters, training=training, scores={VALIDATED: rows(images, maps, card.parameters)}
    )


def inherited(card: ModelCard, earlier: ModelCard) -> ModelCard:
    """Return the card with an earlier version's validation scores and calibration."""
    names = ("score_distance", "score_probability")
    parameters = {**card.parameters, **{name: earlier.parameters[name] for name in names}}
    training = {**card.training, "calibrated scores": earlier.training["calibrated scores"]}
    return replace(card, parameters=parameters, training=training, scores={VALIDATED: earlier.scores[VALIDATED]})


def rows(images: Any, maps: Any, parameters: Any) -> dict[str, dict[str, float]]:
    """Return the scores by image and their mean, as a card has them."""
    found = score_parameters(RECIPE, images, maps, parameters)
    both = {"mean": found.mean, **found.by_image}
    return {name: {key: round(value, DIGITS) for key, value in as_mapping(row).items()} for name, row in both.items()}


def averaged(checkpoint: Path) -> torch.nn.Module:
    """Return the network with the averaged weights of a checkpoint."""
    network = RECIPE.network()
    load_average(network, checkpoint)
    return network.eval()


def rounded(module: torch.nn.Module) -> torch.nn.Module:
    """Return the network, batch norms folded, with float32 weights that bfloat16 holds exactly."""
    folded = fold_batch_norm(module)
    for parameter in folded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return folded


def compress(path: Path) -> None:
    """Deflate every member of a model file; dates are left as TorchScript writes them."""
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(temporary, "w") as target:
        for info in source.infolist():
            target.writestr(replace_type(info), source.read(info))
    temporary.replace(path)


def replace_type(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a member's entry, to be compressed and without the padding that aligned it."""
    entry = zipfile.ZipInfo(info.filename, info.date_time)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


if __name__ == "__main__":
    main()
