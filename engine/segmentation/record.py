"""The record beside a slide's result: what was run, with what, and what came of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nuclix.engine.files import replace_file

RECORD_FORMAT = 1
_VERSIONS_OF = ("nuclix", "numpy", "torch", "tiffslide", "tifffile", "imagecodecs")


@dataclass(slots=True)
class SlideRecord:
    """One slide's outcome.

    Attributes
    ----------
    slide : mapping
        Path, fingerprint, SHA-256, vendor, size, scale and its source, bounds.
    model : mapping
        Name, SHA-256, post-processor and its parameters.
    settings : mapping
        The run's whole configuration.
    seconds : mapping
        Wall time, and time by stage (summed over threads).
    counts : mapping
        Tiles, pixels, nuclei.
    warnings : list of str
        What the user should know.
    result : mapping
        The result's file and its SHA-256, and what it depends on.
    """

    slide: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Return the versions of what computes the result."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS_OF}}


def write_record(path: Path, record: SlideRecord) -> None:
    """Write the record as JSON; the file is complete or not there.

    Raises
    ------
    OSError
        If the folder can't be written.
    """
    content = {"format": RECORD_FORMAT, **asdict(record), "versions": versions()}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # A file's name may hold bytes that are no text; Python's escapes for them are JSON's too.
    replace_file(path, text.encode("utf-8", "backslashreplace"))
