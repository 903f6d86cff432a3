"""Put networks for another runtime into a model file, after comparing their maps with PyTorch's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError, UsageError
from nuclix.engine.files import temporary_name
from nuclix.engine.inference.array_predictor import ArrayPredictor
from nuclix.engine.inference.device import choose_device, thread_share
from nuclix.engine.inference.embedded import write_networks
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.inference.model_source import TORCH, source_of
from nuclix.engine.inference.patch_predictor import PatchPredictor
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.inference.runtime import ArrayRuntime, ArraySettings, array_runtime
from nuclix.engine.model_card import ModelCard
from nuclix.engine.run_config import INT8

FLOAT32 = "float32"
# Parts of a map's range by which float32 may differ between two runtimes: 100 times what the shipped networks do.
TOLERANCE = 1e-3
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What was found out about a network for another runtime.

    Attributes
    ----------
    precision : str
        Its number format.
    mean, largest : float
        Difference of its maps from PyTorch's in float32, on the patches that were given, in parts of their range.
    """

    precision: str
    mean: float
    largest: float


def add_runtime(
    source: Path, out: Path, name: str, trial: NDArray[np.uint8], calibration: Sequence[NDArray[np.uint8]] = ()
) -> list[RuntimeFacts]:
    """Write a copy of a model file that another runtime can run, too.

    Parameters
    ----------
    source, out : Path
        A model file with its card inside, and the copy.
    name : str
        The runtime, such as "openvino".
    trial : (size, size, 3) uint8
        A patch to compare maps on.
    calibration : sequence of (size, size, 3) uint8
        Patches of tissue at the model's scale, which a network in int8 is made with; without any there is none.

    Returns
    -------
    list of RuntimeFacts
        One for each number format.

    Raises
    ------
    ModelError, UsageError
        If the file is not TorchScript with a card inside, the runtime can't be used, or its maps differ in float32.
    """
    runtime = array_runtime(name)
    if runtime is None:
        raise UsageError(f"--add {name}: no runtime of this name has networks inside model files")
    loaded = load_model(source, runtime=TORCH)
    if source_of(source) is not None or not loaded.card.is_plain:
        raise ModelError(f"{source}: make one TorchScript model file of it with `nuclix pack --card` first")
    networks = runtime.pack(source, loaded.card, calibration)
    torch_maps = _torch_predictor(loaded.card, loaded.module)
    patches = list(calibration) or [trial]
    trial_file = temporary_name(out)  # what is there under the final name stays until the maps have been compared
    try:
        card = write_networks(source, trial_file, loaded.card, name, networks)
        facts = [
            _compared(precision, torch_maps, _opened(runtime, trial_file, card, precision), patches)
            for precision in networks
        ]
        _check(facts, out)
        if INT8 in networks:
            noted = replace(card, quantisation=_quantisation(facts, patches))
            write_networks(trial_file, trial_file, noted, name, networks)
        trial_file.replace(out)
    finally:
        trial_file.unlink(missing_ok=True)
    return facts


def _torch_predictor(card: ModelCard, module: Any) -> PatchPredictor:
    import torch

    from nuclix.engine.inference.model_file import LoadedModel

    return Predictor(LoadedModel(card, module, ""), InferenceSettings(choose_device("cpu"), torch.float32, 1))


def _opened(runtime: type[ArrayRuntime], path: Path, card: ModelCard, precision: str) -> PatchPredictor:
    settings = ArraySettings(precision, thread_share(1))
    return ArrayPredictor(card, runtime.open(path, path.read_bytes(), card, settings), settings)


def _compared(
    precision: str, torch: PatchPredictor, other: PatchPredictor, patches: Sequence[NDArray[np.uint8]]
) -> RuntimeFacts:
    maps = [(torch([patch]), other([patch])) for patch in patches]
    extent = max(float(np.ptp(expected)) for expected, _ in maps) or 1.0
    apart = [np.abs(expected - found) / extent for expected, found in maps]
    mean, largest = float(np.mean([item.mean() for item in apart])), max(float(item.max()) for item in apart)
    return RuntimeFacts(precision, mean, largest)


def _check(facts: Sequence[RuntimeFacts], out: Path) -> None:
    for item in facts:
        if item.precision == FLOAT32 and item.largest > TOLERANCE:
            raise ModelError(
                f"{out}: not written: its maps would differ from PyTorch's by {item.largest:.2%} of their range"
            )


def _quantisation(facts: Sequence[RuntimeFacts], patches: Sequence[NDArray[np.uint8]]) -> Mapping[str, Any]:
    """Return what the card says of an int8 network."""
    found = next(item for item in facts if item.precision == INT8)
    digest = hashlib.sha256(b"".join(patch.tobytes() for patch in patches))
    return {
        "calibration_patches": len(patches),
        "calibration_sha256": digest.hexdigest(),
        "mean_difference": round(found.mean, _DIGITS),
        "largest_difference": round(found.largest, _DIGITS),
    }
