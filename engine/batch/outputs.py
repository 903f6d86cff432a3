"""Which result files of a finished slide are missing: formats that were not asked for before, or deleted files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.ledger import LedgerRow
from nuclix.engine.files import checksum
from nuclix.engine.run_config import AUTO_FORMAT, AUTO_FORMATS, RunConfig
from nuclix.engine.segmentation.outputs import WritersByFormat, chosen_formats, merged_outputs
from nuclix.engine.segmentation.record import SlideRecord, read_record


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


def recorded_outputs(row: LedgerRow) -> list[Mapping[str, Any]]:
    """Return the result files that the ledger knows of; a ledger of nuclix 0.1.0 has one GeoJSON."""
    found = row.record.get("outputs") or []
    if found or row.output is None:
        return list(found)
    return [{"format": "geojson", "path": row.output, "sha256": row.checksum, "annotations": False}]


def check_outputs(row: LedgerRow, stem: Path, config: RunConfig, writers: WritersByFormat) -> OutputCheck:
    """Compare the files of a slide with those that a run is to write.

    Parameters
    ----------
    row : LedgerRow
        The finished slide.
    stem : Path
        Path of its results without their suffixes.
    config : RunConfig
        The options of the run.
    writers : mapping of str to Writer
        The writers of its formats.
    """
    out = config.output_folder
    of_file = read_record(stem.with_name(f"{stem.name}.json"))  # a run that was killed may have got no further
    items = merged_outputs(of_file.outputs if of_file else (), recorded_outputs(row))
    recorded = {out / str(item["path"]): item for item in items}
    intact = {path: item for path, item in recorded.items() if path.is_file() and checksum(path) == item["sha256"]}
    formats = chosen_formats(config.format, int(row.record.get("counts", {}).get("nuclei", 0)))
    targets = {name: stem.with_name(stem.name + writers[name].suffix) for name in formats}
    missing = [
        name
        for name, path in targets.items()
        if path not in intact or bool(intact[path].get("annotations")) != config.tissue_annotations
    ]
    wanted = {*recorded, *targets.values()}
    changed = tuple(path for path in sorted(wanted) if path.exists() and path not in intact)
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
