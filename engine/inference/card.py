"""Cards of models: JSON inside a model file, or TOML next to it. They are untrusted input."""

from __future__ import annotations

import json
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nuclix.engine.errors import ModelError
from nuclix.engine.model_card import ModelCard
from nuclix.engine.parameters import from_mapping

CARD_NAME = "nuclix.json"
FORMAT_KEY = "format"
FORMER_KEYS = {"um_per_px": "mpp"}  # of the scale
FORMAT = 1
MAX_PATCH_PX = 8192  # 64 Mpx in one forward pass
MIN_VALID_SHARE = 8  # a network that keeps less than an eighth of its patch's edge computes each pixel 64 times
MPP_RANGE = (0.01, 50.0)  # um/px: from super-resolution to a slide's thumbnail
MAX_MAPS = 256


def parse_json(text: bytes, path: Path) -> dict[str, Any]:
    """Return the values of a card inside a model file.

    Raises
    ------
    ModelError
        If it is not JSON, or of a format that this version does not read.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path}: its {CARD_NAME} is not JSON: {problem}") from problem
    if not isinstance(values, dict):
        raise ModelError(f"{path}: its {CARD_NAME} must be a table")
    if values.get(FORMAT_KEY) != FORMAT:
        raise ModelError(
            f"{path}: its {CARD_NAME} has the format {values.get(FORMAT_KEY)!r}; this version reads {FORMAT}"
        )
    return values


def parse_toml(path: Path) -> dict[str, Any]:
    """Return the values of a card in a TOML file.

    Raises
    ------
    ModelError
        If the file can't be read, or is of a format that this version does not read.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise ModelError(f"{path}: can't be read as TOML: {problem}") from problem
    if values.get(FORMAT_KEY, FORMAT) != FORMAT:
        raise ModelError(f"{path}: has the format {values[FORMAT_KEY]!r}; this version reads {FORMAT}")
    return values


def card_of(values: Mapping[str, Any], where: str) -> ModelCard:
    """Return the card of untrusted values.

    Raises
    ------
    ModelError
        If a value is missing, unknown or out of its range; the message names the key.
    """
    facts = {"parameters": {}, **{key: value for key, value in values.items() if key != FORMAT_KEY}}
    scale = facts.get("scale")
    if isinstance(scale, Mapping):
        facts["scale"] = {FORMER_KEYS.get(key, key): value for key, value in scale.items()}
    card = from_mapping(ModelCard, facts, where, ModelError)
    if not card.maps or not card.classes:
        raise ModelError(f"{where}: needs at least one entry in maps and in classes")
    for item in card.classes:
        if not all(0 <= value <= 255 for value in item.color):
            raise ModelError(f"{where}: the color of class {item.name!r} must be three numbers in 0..255")
    _check_names(card, where)
    _check_ranges(card, where)
    _check_text(values, where)
    return card


def _check_names(card: ModelCard, where: str) -> None:
    """Refuse names that stand for two things: counts, colors and channels are found by them."""
    groups = (
        ("classes", [item.name for item in card.classes]),
        ("maps and class_maps", [*card.maps, *card.class_maps]),
    )
    for key, names in groups:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ModelError(f"{where}: {key} name {twice[0]!r} {names.count(twice[0])} times; give each its own name")
        if not all(name.strip() for name in names):
            raise ModelError(f"{where}: {key} hold an empty name")


def _check_ranges(card: ModelCard, where: str) -> None:
    """Refuse figures with which a slide would take years or more memory than there is."""
    patch = card.patch
    if patch.size > MAX_PATCH_PX:
        raise ModelError(f"{where}: patches of {patch.size} px are larger than {MAX_PATCH_PX} px")
    if patch.valid * MIN_VALID_SHARE < patch.size:
        raise ModelError(
            f"{where}: a margin of {patch.margin} px leaves {patch.valid} of {patch.size} px of each patch; "
            f"at least {patch.size // MIN_VALID_SHARE} px are needed: use larger patches"
        )
    if not MPP_RANGE[0] <= card.scale.mpp <= MPP_RANGE[1]:
        raise ModelError(f"{where}: a scale of {card.scale.mpp:g} um/px is not within {MPP_RANGE[0]} to {MPP_RANGE[1]}")
    if len(card.maps) > MAX_MAPS:
        raise ModelError(f"{where}: {len(card.maps)} maps are more than {MAX_MAPS}")


def _check_text(value: Any, where: str) -> None:
    """Refuse text that is no Unicode or that would steer a terminal."""
    if isinstance(value, str):
        bad = [char for char in value if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
        if bad:
            raise ModelError(f"{where}: holds the control character {bad[0]!r} in {value[:40]!r}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_text(key, where)
            _check_text(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, where)


def card_from_toml(path: Path, amend: Callable[[dict[str, Any]], None] = lambda values: None) -> ModelCard:
    """Read a card from a TOML file; `amend` may change its values before they are checked.

    Raises
    ------
    ModelError
        If the file can't be read or a value does not fit; the message names file and key.
    """
    values = parse_toml(path)
    amend(values)
    return card_of(values, str(path))


def patch_size_of(path: Path) -> int:
    """Return ``patch.size`` of a card in TOML.

    Raises
    ------
    ModelError
        If the file can't be read or does not say it.
    """
    patch = parse_toml(path).get("patch")
    size = patch.get("size") if isinstance(patch, Mapping) else None
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"{path}: missing key 'size' in [patch]: the edge of the network's patch in px")
    return size
