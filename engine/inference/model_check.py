"""Try a network once before the first slide: a model that can't work is one message, not one per slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError
from nuclix.engine.inference.patch_predictor import PatchPredictor
from nuclix.engine.run_config import TF32

# Parts of the maps' range by which a pixel may differ between two patches that both contain it. The five shipped
# networks differ by 0; with half their margin by 0.5 to 15 %, with a sixth of it by 20 to 35 %. A network that averages
# over its whole patch, as squeeze-and-excitation does, differs a little wherever it is cut.
_NOTED = {"float32": 1e-3, "half": 3e-2}
_REFUSED = 0.05
_SEED = 2018
_STAINS = np.array([[235, 225, 235], [205, 140, 185], [105, 75, 145]], np.float32)  # background, eosin, haematoxylin
_CELL_PX = (96, 24, 6)  # regions, nuclei and texture of the trial image


def check_network(predictor: PatchPredictor) -> list[str]:
    """Run a network on two patches of one image and compare what they have in common.

    Parameters
    ----------
    predictor : PatchPredictor
        Loaded on its device.

    Returns
    -------
    list of str
        Warnings for the records of this model's slides.

    Raises
    ------
    ModelError
        If the network fails, returns something else than its card says or values that are not finite, or if it looks
        further than the margin of its patches and its card does not say what that changes.
    """
    patch, step, size = predictor.patch, predictor.patch.multiple, predictor.trial_size
    valid = size - 2 * patch.margin
    image = _trial_image(size + step)
    here = predictor([image[:size, :size]])[0]
    if predictor.margin_is_tested or step >= valid:
        return []
    there = predictor([image[step:, step:]])[0]
    first, second = here[:, step:, step:], there[:, : valid - step, : valid - step]
    extent = float(here.max() - here.min())
    part = float(np.abs(first - second).max()) / extent if extent > 0 else 0.0
    if part > _REFUSED:
        raise ModelError(
            f"model {predictor.name}: its margin of {patch.margin} px is too small: the network looks further, and "
            f"maps change by up to {100 * part:.0f} % of their range where patches meet; state a larger `margin` in "
            "its card"
        )
    noted = _NOTED["float32" if predictor.precision_name in ("float32", TF32) else "half"]
    if part > noted:
        return [
            f"the network looks further than its margin of {patch.margin} px: maps change by up to {100 * part:.1f} % "
            "of their range where patches meet"
        ]
    return []


def _trial_image(size: int) -> NDArray[np.uint8]:
    """Return a (size, size, 3) image in the colours of H&E with structure at several scales."""
    rng = np.random.default_rng(_SEED)
    depth = np.zeros((size, size), np.float32)
    for cell in _CELL_PX:
        cells = rng.random((-(-size // cell), -(-size // cell)), np.float32)
        depth += np.kron(cells, np.ones((cell, cell), np.float32))[:size, :size]
    place = depth / depth.max() * (len(_STAINS) - 1)
    low = np.minimum(place.astype(int), len(_STAINS) - 2)
    part = (place - low)[..., None]
    pixels = (1 - part) * _STAINS[low] + part * _STAINS[low + 1]
    return pixels.astype(np.uint8)
