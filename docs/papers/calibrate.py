"""Calibrate the detection scores of a `dist` model file on the validation images of its data, and write it again.

    python docs/papers/calibrate.py kumar16 plugins/weights/dist-kumar16.pt plugins/recipes/kumar16.csv

For models that were trained before `nuclix train` did so itself. The network and the other parameters stay as they are.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nuclix.engine.inference.model_file import load_model, write_model
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.calibration import fit_curve, judged, reliability
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.splits import SplitOptions
from nuclix.engine.training.validation import forward, make_postprocessor
from nuclix.plugins.recipes.dist import DistRecipe

KNOTS = ("score_distance", "score_probability")
DIGITS = 4


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("model", type=Path, help="model file; it is replaced")
    parser.add_argument("split", type=Path, help="CSV with the columns image and split")
    args = parser.parse_args()
    model = load_model(args.model)
    recipe = DistRecipe(mpp=model.card.scale.mpp)
    images = load_dataset(args.data, SplitOptions(args.split), recipe.scale.mpp).validation
    network = Execution.of("cpu", "float32").inference(model.module)
    maps = [forward(network, item.image, model.card.patch.multiple).numpy() for item in images]
    parameters = {key: value for key, value in model.card.parameters.items() if key not in KNOTS}
    items = judged(recipe, images, maps, parameters)
    curve, found = fit_curve(items), reliability(items)
    if curve is None or found is None:
        raise SystemExit("too few nuclei to calibrate on")
    points = ([round(float(value), DIGITS) for value in part] for part in (curve.raw, curve.probability))
    parameters.update(make_postprocessor(recipe, parameters).calibrated(*points))
    training = {**model.card.training, "calibrated scores": as_mapping(found)}
    write_model(args.model, model.module, replace(model.card, parameters=parameters, training=training))
    print(as_mapping(found))
    print({key: parameters[key] for key in KNOTS})


if __name__ == "__main__":
    main()
