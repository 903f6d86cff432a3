"""Check a model's card for values that no model has."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from nuclix.engine.errors import ModelError
from nuclix.engine.model_card import ModelCard

MAX_PATCH_PX = 8192  # 64 Mpx in one forward pass
MIN_VALID_SHARE = 8  # a network that keeps less than an eighth of its patch's edge computes each pixel 64 times
MPP_RANGE = (0.01, 50.0)  # um/px: from super-resolution to a slide's thumbnail
MAX_MAPS = 256


def check_ranges(card: ModelCard, where: str) -> None:
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


def check_text(value: Any, where: str) -> None:
    """Refuse text that is no Unicode or that would steer a terminal."""
    if isinstance(value, str):
        bad = [char for char in value if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
        if bad:
            raise ModelError(f"{where}: holds the control character {bad[0]!r} in {value[:40]!r}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key, where)
            check_text(item, where)
    elif isinstance(value, list):
        for item in value:
            check_text(item, where)
