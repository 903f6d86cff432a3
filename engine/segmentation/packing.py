"""One model file of a user's network and its card, checked on an image."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PostProcessor
from nuclix.engine.errors import ModelError
from nuclix.engine.files import replace_file
from nuclix.engine.inference.card import card_from_toml
from nuclix.engine.inference.model_file import card_text, load_torchscript, write_model
from nuclix.engine.inference.model_source import ModelSource, source_of
from nuclix.engine.model_card import InputFormat, ModelCard, PatchShape
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.classes import INDEX, check_classes, class_rule, find_nuclei
from nuclix.engine.segmentation.network_trial import NetworkTrial
from nuclix.engine.segmentation.preparation import post_processor

# Foreground on an image of tissue; outside, the card is likely wrong about the input or the maps.
PLAUSIBLE_FOREGROUND = (0.001, 0.9)
USUAL_SHARE = 0.5  # of a patch's edge: with less, a pixel is computed more than four times
# Maps under these names are read as probabilities by every post-processor that takes them.
_PROBABILITIES = frozenset({"interior", "boundary", "nucleus", "probability"})
_ROUNDING = 1e-3  # by which a probability may lie outside 0 to 1: number formats of 16 bits
_WEIGHTS_ONLY = "holds weights without the network: build it in Python, load them, and save it with torch.jit.trace"
_TENSORFLOW = "is of TensorFlow: convert it to ONNX (python -m tf2onnx.convert), then pack that"
_ADVICE = {
    ".pth": _WEIGHTS_ONLY,
    ".ckpt": _WEIGHTS_ONLY,
    ".safetensors": _WEIGHTS_ONLY,
    ".h5": _TENSORFLOW,
    ".keras": _TENSORFLOW,
    ".pb": _TENSORFLOW,
    ".xml": "is OpenVINO's: pack the TorchScript or ONNX file it was made from, then run it with --runtime openvino",
    ".engine": "is compiled for one GPU: pack the TorchScript or ONNX file that it was made from",
}


@dataclass(frozen=True, slots=True)
class MapFacts:
    """Least, mean and largest value of an output channel on the image."""

    name: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class PackFacts:
    """What was found out about a network.

    Attributes
    ----------
    card : ModelCard
        As it was written.
    crop : int
        Pixels that the network leaves out on every side of its patch.
    reach : int
        Pixels from the patch's edge within which its border changes the maps, on the image.
    maps : tuple of MapFacts
        Output channels.
    foreground : float
        Share of the image's pixels that are foreground.
    nuclei : int
        Found on the image.
    deterministic : bool
        Whether two runs gave the same bits.
    mpx_per_s : float
        Speed in million pixels a second, of this process on a CPU.
    warnings : tuple of str
        What the user should look at.
    """

    card: ModelCard
    crop: int
    reach: int
    maps: tuple[MapFacts, ...]
    foreground: float
    nuclei: int
    deterministic: bool
    mpx_per_s: float
    warnings: tuple[str, ...]


def pack_model(network: Path, card_file: Path, out: Path, image: NDArray[np.uint8]) -> PackFacts:
    """Write a model file that holds a network, what its card asks for around it, and the card.

    Parameters
    ----------
    network : Path
        TorchScript, or a file of a model source that can hold a card (ONNX, an archive of ``torch.export``).
    card_file : Path
        TOML. ``patch.margin`` may be left out: it is measured then.
    out : Path
        The model file; of the format of `network`.
    image : (H, W, 3) uint8
        Tissue at the model's scale, at least one and a half patches high and wide.

    Returns
    -------
    PackFacts

    Raises
    ------
    ModelError
        If the network can't be loaded or run, its output does not fit the card, or the card is not valid.
    """
    import torch

    card, measured = _read(card_file)
    post = post_processor(card, RunConfig(), str(card_file))
    class_rule(card, str(card_file))
    check_classes(card, post, str(card_file))
    source = source_of(network)
    _check_formats(source, network, out)
    module = load_torchscript(network, "cpu") if source is None else source.load(network, card, "cpu")
    trial = NetworkTrial(module, replace(card, crop=0), network)
    size = card.patch.size
    trial.find_crop(image)
    maps, again = trial.run(image, size), trial.run(image, size)
    reach = trial.crop if trial.crop else 0
    warnings = []
    if measured or trial.grows(image, size):
        reach = max(reach, trial.reach(image, size))
    if measured:
        card = replace(card, patch=_with_margin(card.patch, reach, network))
    elif reach > card.patch.margin:
        warnings.append(f"the margin of {card.patch.margin} px is less than the {reach} px that the border reaches")
    if card.patch.valid < card.patch.size * USUAL_SHARE:
        warnings.append(
            f"of a patch of {card.patch.size} px only the middle {card.patch.valid} px are used: a larger patch.size "
            "is faster, and patch.margin can be less if the nuclei do not change"
        )
    done = replace(card, crop=trial.crop)
    shape = maps.shape[1:]
    inner = np.s_[:, trial.crop : shape[0] - trial.crop, trial.crop : shape[1] - trial.crop]
    facts = _map_facts(maps[inner], done)
    share, nuclei = _nuclei(post, np.ascontiguousarray(maps[inner]), done, str(card_file))
    warnings += _warnings(facts, share)
    same = bool(np.array_equal(maps, again, equal_nan=True))
    if not same:
        warnings.append("two runs on the same patch differ: is the network in evaluation mode?")
    speed = trial.speed(image, size)
    packed = trial.traced() if source is None else trial.network(trial.crop)
    done = replace(done, patch=replace(done.patch, dynamic=trial.takes_parts(packed, image, maps, done.patch)))
    if source is not None:
        replace_file(out, source.with_card(network.read_bytes(), card_text(done).encode()))
    elif isinstance(packed, torch.jit.ScriptModule):
        write_model(out, packed, replace(done, input=InputFormat(), outputs=(), stride=1, crop=0))
    return PackFacts(done, trial.crop, reach, facts, share, nuclei, same, speed, tuple(warnings))


def _read(path: Path) -> tuple[ModelCard, bool]:
    """Return the card, and whether its margin is left to be measured."""

    def fill(values: dict[str, Any]) -> None:
        patch = values.get("patch")
        if isinstance(patch, Mapping) and "margin" not in patch:
            values["patch"] = {**patch, "margin": 0}
            missing.append(path)

    missing: list[Path] = []
    card = card_from_toml(path, fill)
    return card, bool(missing)


def _check_formats(source: type[ModelSource] | None, network: Path, out: Path) -> None:
    """Refuse formats that hold no network, or no card."""
    suffix = network.suffix.lower()
    if suffix in _ADVICE:
        raise ModelError(f"{network}: {_ADVICE[suffix]}")
    if source is not None and out.suffix.lower() != suffix:
        raise ModelError(f"{out}: the model file is of the format of {network.name}: end its name with {suffix}")
    if source is None and _is_pickle(network):
        raise ModelError(f"{network}: was written by torch.save, not torch.jit.save: it {_WEIGHTS_ONLY}")


def _is_pickle(path: Path) -> bool:
    """Return whether a file is a zip archive of `torch.save`: of weights, or of a module without its code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    return "data.pkl" in names and "constants.pkl" not in names


def _with_margin(patch: PatchShape, reach: int, path: Path) -> PatchShape:
    margin = -(-reach // patch.multiple) * patch.multiple
    if 2 * margin >= patch.size:
        raise ModelError(
            f"{path}: a patch's border changes its maps up to {reach} px inside, which leaves nothing of {patch.size} "
            "px: enlarge patch.size, or give patch.margin where the network averages over its whole patch"
        )
    return replace(patch, margin=margin)


def _map_facts(maps: NDArray[np.float32], card: ModelCard) -> tuple[MapFacts, ...]:
    names = (*card.maps, *card.class_maps)
    return tuple(
        MapFacts(name, float(plane.min()), float(plane.mean()), float(plane.max()))
        for name, plane in zip(names, maps, strict=True)
    )


def _nuclei(post: PostProcessor, maps: NDArray[np.float32], card: ModelCard, where: str) -> tuple[float, int]:
    mask = post.foreground(maps[: len(post.maps)])
    found = find_nuclei(post, maps, mask, class_rule(card, where))
    return float(mask.mean()), int(found.labels.max(initial=0))


def _warnings(facts: tuple[MapFacts, ...], foreground: float) -> list[str]:
    warnings = [f"the map {item.name} holds values that are no numbers" for item in facts if item.mean != item.mean]
    warnings += [f"the map {item.name} is {item.low:g} everywhere" for item in facts if item.low == item.high]
    warnings += [
        f"the map {item.name} reaches from {item.low:.4g} to {item.high:.4g}, but must be a probability: which "
        "activation turns the network's output into one (softmax, sigmoid)?"
        for item in facts
        if item.name in _PROBABILITIES and (item.low < -_ROUNDING or item.high > 1 + _ROUNDING)
    ]
    low, high = PLAUSIBLE_FOREGROUND
    if not low <= foreground <= high:
        warnings.append(
            f"{foreground:.1%} of the image is foreground: are the range of the input, the activation and the "
            "post-processor's thresholds right?"
        )
    return warnings


def describe(facts: PackFacts) -> str:
    """Return the findings as lines of text."""
    patch = facts.card.patch
    lines = [
        f"patch       {patch.size} px, of which the middle {patch.valid} px are used (margin {patch.margin} px); "
        + ("parts of it where there is less tissue" if patch.dynamic else "always whole"),
        f"border      changes the maps up to {facts.reach} px inside"
        + (f"; the network leaves {facts.crop} px out" if facts.crop else ""),
        *(f"map         {item.name}: {item.low:.4g} to {item.high:.4g}, mean {item.mean:.4g}" for item in facts.maps),
        *_class_lines(facts.card),
        f"image       {facts.foreground:.1%} foreground, {facts.nuclei} nuclei",
        f"repeatable  {'yes' if facts.deterministic else 'no'}",
        f"speed       {facts.mpx_per_s:.2f} Mpx/s on this CPU",
        *(f"warning: {warning}" for warning in facts.warnings),
    ]
    return "\n".join(lines)


def _class_lines(card: ModelCard) -> list[str]:
    """Return which channel is of which class."""
    rule = class_rule(card, card.name)
    names = [item.name for item in card.classes]
    if rule is None:
        return []
    if rule.form == INDEX:
        numbers = ", ".join(f"{k} {name}" for k, name in enumerate(names, 1))
        return [f"classes     numbers in the map {card.class_maps[0]}: {numbers}"]
    pairs = zip(card.class_maps[int(rule.background) :], names, strict=True)
    ground = f"; {card.class_maps[0]} is the background" if rule.background else ""
    return ["classes     " + ", ".join(f"{name} from {map_}" for map_, name in pairs) + ground]


def facts_as_json(facts: PackFacts) -> str:
    """Return the findings as JSON."""
    from nuclix.engine.parameters import as_mapping

    return json.dumps(as_mapping(facts), indent=2) + "\n"
