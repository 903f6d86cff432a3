"""Which result files of a finished slide are missing: formats that were not asked for before, or deleted files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nuclix.engine.batch.known_results import KnownResult, inside
from nuclix.engine.run_config import AUTO_FORMAT, AUTO_FORMATS, RunConfig
from nuclix.engine.segmentation.outputs import WritersByFormat, chosen_formats
from nuclix.engine.segmentation.record import SlideRecord


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """The state of a finished slide's result files.

    Attributes
    ----------
    missing : tuple of str
        Formats to write.
    deleted : tuple of Path
        Files that the ledger knows of and that are not there.
    changed : tuple of Path
        Files in the place of a result that nuclix did not write, to be moved aside.
    known : tuple of Path
        All files that nuclix wrote and nobody changed.
    """

    missing: tuple[str, ...]
    deleted: tuple[Path, ...]
    changed: tuple[Path, ...]
    known: tuple[Path, ...]


def check_outputs(
    known: KnownResult, stem: Path, config: RunConfig, writers: WritersByFormat, is_intact: Callable[[Path, str], bool]
) -> OutputCheck:
    """Compare the files of a slide with those that a run is to write.

    Parameters
    ----------
    known : KnownResult
        The finished slide.
    stem : Path
        Path of its results without their suffixes.
    config : RunConfig
        The options of the run.
    writers : mapping of str to Writer
        The writers of its formats.
    is_intact : callable
        Tells whether a file still has a SHA-256.
    """
    out = config.output_folder
    recorded = {path: item for item in known.outputs if (path := inside(out, item.get("path"))) is not None}
    intact = {
        path: item for path, item in recorded.items() if path.is_file() and is_intact(path, str(item.get("sha256")))
    }
    formats = chosen_formats(config.format, known.nuclei)
    targets = {name: stem.with_name(stem.name + writers[name].suffix) for name in formats}
    missing = [
        name
        for name, path in targets.items()
        if path not in intact or bool(intact[path].get("annotations")) != config.tissue_annotations
    ]
    wanted = {*recorded, *targets.values()}
    changed = tuple(path for path in sorted(wanted) if os.path.lexists(path) and path not in intact)
    deleted = tuple(path for path in recorded if not path.exists())
    return OutputCheck(tuple(missing), deleted, changed, tuple(intact))


def large_slide_notice(name: str, formats: Sequence[str], record: SlideRecord) -> str:
    """Return what a user should know where ``auto`` has chosen the format for many nuclei; else an empty string."""
    nuclei, chosen = int(record.counts.get("nuclei", 0)), AUTO_FORMATS[1]
    if AUTO_FORMAT not in formats or chosen not in chosen_formats((AUTO_FORMAT,), nuclei):
        return ""
    path = next((item["path"] for item in record.outputs if item["format"] == chosen), "")
    return (
        f"{name}: {nuclei:,} nuclei are written as {path}, a zip of small GeoJSON files that QuPath opens like one; "
        "for a single file give --format geojson"
    )
