"""The record next to a slide's result: what was run, with what, and what came of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nuclix.engine.files import replace_file
from nuclix.engine.registry import installed_version

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
    outputs : list of dict
        The result files: format, path in the output folder, SHA-256, options.
    result : mapping
        What the objects depend on, and the state of the slide's files.
    regions : list of dict
        Of a run that was limited to regions: name, class, area, nuclei and density of each.
    """

    slide: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)
    regions: list[dict[str, Any]] = field(default_factory=list)


def versions() -> dict[str, str]:
    """Return the versions of what computes the result."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONS_OF}}


def run_warnings(clumps_cut: int, batch_asked: int, batch: int) -> list[str]:
    """Return what the user should know of a finished slide: how often clumps were cut, and a smaller batch."""
    warnings = []
    if clumps_cut:
        warnings.append(
            f"clumps of foreground over the limit (17 Mpx) were split in {clumps_cut} parts that overlap; "
            "the model may not suit this slide"
        )
    if batch < batch_asked:
        warnings.append(
            f"the device was out of memory with {batch_asked} patches at a time: computed as with --batch {batch}"
        )
    return warnings


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


def read_record(path: Path) -> SlideRecord | None:
    """Return the record at `path`, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
        known = {item.name: content[item.name] for item in fields(SlideRecord) if item.name in content}
        return SlideRecord(**known) if content["format"] == RECORD_FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
