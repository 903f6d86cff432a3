"""Results that were finished at some time, as the ledger or a slide's record describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.ledger import LedgerRow
from nuclix.engine.segmentation.outputs import merged_outputs
from nuclix.engine.segmentation.record import SlideRecord, read_record
from nuclix.engine.segmentation.result_key import read_key


@dataclass(frozen=True, slots=True)
class KnownResult:
    """A finished result.

    Attributes
    ----------
    outputs : sequence of mapping
        Its files: format, path in the output folder, SHA-256, options.
    key : mapping
        What it was made from.
    mpp : float or None
        um/px of the slide that was used.
    nuclei : int
        Number of its objects.
    slide_state, content : str or None
        Sizes and modification times of the slide's files, and the digest of their bytes.
    output_states : mapping of str to str
        Size and modification time of each result file when it was finished.
    row : mapping or None
        What the ledger should hold, where it does not.
    """

    outputs: Sequence[Mapping[str, Any]]
    key: Mapping[str, Any]
    mpp: float | None
    nuclei: int
    slide_state: str | None
    content: str | None
    output_states: Mapping[str, str]
    row: Mapping[str, Any] | None


def recorded_outputs(row: LedgerRow) -> list[Mapping[str, Any]]:
    """Return the result files that the ledger knows of; a ledger of nuclix 0.1.0 has one GeoJSON."""
    found = row.record.get("outputs") or []
    if found or row.output is None:
        return list(found)
    return [{"format": "geojson", "path": row.output, "sha256": row.checksum, "annotations": False}]


def is_record(path: Path) -> bool:
    """Return whether a file is the record of a slide that nuclix wrote."""
    return not path.is_symlink() and read_record(path) is not None


def inside(out: Path, output: object) -> Path | None:
    """Return the path of a result in the output folder; None for a link, and for one that would lie outside."""
    if not isinstance(output, str) or ".." in Path(output).parts or Path(output).is_absolute():
        return None
    path = out / output
    return None if path.is_symlink() else path


def from_ledger(row: LedgerRow, record: SlideRecord | None) -> KnownResult | None:
    """Return the result of a row of the ledger, or None where there is none.

    Parameters
    ----------
    row : LedgerRow
        The slide.
    record : SlideRecord or None
        Its record: a run may have been killed before the ledger knew of the last files.
    """
    outputs = merged_outputs(record.outputs if record else (), recorded_outputs(row))
    if not outputs or row.output is None:
        return None
    mpp, nuclei = _facts(row.record)
    states = _states(row.output_state)
    return KnownResult(outputs, read_key(row.key), mpp, nuclei, row.slide_state, row.content, states, None)


def from_record(record: SlideRecord | None) -> KnownResult | None:
    """Return the result that a slide's record describes: a run may have been killed just after it wrote both."""
    if record is None or not record.outputs or not record.result.get("key"):
        return None
    facts = record.result
    mpp, nuclei = _facts(asdict(record))
    first = record.outputs[0]
    row = {
        **facts,
        "output": first.get("path"),
        "checksum": first.get("sha256"),
        "fingerprint": record.slide.get("fingerprint"),
        "record": asdict(record),
    }
    state, content = facts.get("slide_state"), facts.get("content")
    return KnownResult(record.outputs, read_key(facts["key"]), mpp, nuclei, state, content, {}, row)


def _states(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _facts(record: Mapping[str, Any]) -> tuple[float | None, int]:
    """Return um/px and number of nuclei of a record."""
    slide, counts = record.get("slide") or {}, record.get("counts") or {}
    mpp, nuclei = slide.get("mpp"), counts.get("nuclei")
    return (float(mpp) if isinstance(mpp, int | float) else None), (int(nuclei) if isinstance(nuclei, int) else 0)
