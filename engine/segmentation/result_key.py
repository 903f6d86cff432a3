"""What a slide's result depends on, as text that is compared when a run is started again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nuclix.engine.run_config import RunConfig, option_specs, result_settings
from nuclix.engine.segmentation.classes import class_map_hash

# Raise this when the same slide, model and options give other objects or another file than before.
# 1: nuclix 0.1.0. 2: smooth outlines and stain measurements.
RESULT_FORMAT = 2


def result_key(
    slide_fingerprint: str,
    model_sha256: str,
    config: RunConfig,
    user_mpp: float | None,
    side_files: Mapping[str, str] | None = None,
) -> str:
    """Return what a slide's result depends on.

    Block size and threads are not in it, because results do not depend on them; neither is the device, which each
    record states.

    Parameters
    ----------
    slide_fingerprint : str
        The slide's fingerprint.
    model_sha256 : str
        The model file's SHA-256.
    config : RunConfig
        The options of the run.
    user_mpp : float or None
        The um/px that the user gave, where it was used; None where the file's own scale was.

    side_files : mapping of str to str, optional
        Hashes of the slide's regions and tissue mask, by option.

    Returns
    -------
    str
        JSON.
    """
    facts: dict[str, Any] = {"slide": slide_fingerprint, "model": model_sha256, "format": RESULT_FORMAT}
    if user_mpp is not None:
        facts["mpp"] = user_mpp
    return json.dumps({**facts, **result_settings(config), **class_map_hash(config.class_map), **(side_files or {})})


CLASS_MAP = "class_map"


def objects_key(key: str) -> str:
    """Return what the stored objects of a result depend on: its key without the class map, which is applied later."""
    return json.dumps({name: value for name, value in json.loads(key).items() if name != CLASS_MAP})


def with_class_map(key: str, config: RunConfig) -> str:
    """Return the key of a result with the class map of a run in place of its own.

    Raises
    ------
    UsageError
        If the class map can't be read.
    """
    return json.dumps({**json.loads(objects_key(key)), **class_map_hash(config.class_map)})


def read_key(text: str | None) -> dict[str, Any]:
    """Return the facts of a key, those of nuclix 0.1.0 under their present names; empty for what is no key."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    names = {alias: spec.name for spec in option_specs() for alias in spec.aliases}
    facts: dict[str, Any] = {names.get(str(name), str(name)): value for name, value in found.items()}
    facts.pop("nuclix", None)  # 0.1.0 had its version in the key; its results have format 1
    if facts.get("mpp", 0) is None:
        del facts["mpp"]
    return {"format": 1, **facts} if facts else {}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what differs between two keys; an option that is new counts with its default."""
    defaults = {spec.name: spec.default for spec in option_specs()}

    def value(facts: Mapping[str, Any], name: str) -> Any:
        found = facts.get(name, defaults.get(name))
        return list(found) if isinstance(found, tuple) else found

    return tuple(sorted(name for name in {*old, *new} if value(old, name) != value(new, name)))
