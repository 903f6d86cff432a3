"""Results that were finished at some time, as the ledger or a slide's record describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.batch.ledger import LedgerRow
from nuclix.engine.segmentation.result_key import read_key


@dataclass(frozen=True, slots=True)
class KnownResult:
    """A finished result.

    Attributes
    ----------
    output, checksum : Path, str
        The file, and its SHA-256.
    key : mapping
        What it was made from.
    mpp : float or None
        um/px of the slide that was used.
    slide_state, output_state : str or None
        Size and modification time of slide and file when it was finished.
    content : str or None
        SHA-256 of the slide's bytes.
    row : mapping or None
        What the ledger should hold, where it does not.
    """

    output: Path
    checksum: str
    key: Mapping[str, Any]
    mpp: float | None
    slide_state: str | None
    output_state: str | None
    content: str | None
    row: Mapping[str, Any] | None


def is_record(path: Path) -> bool:
    """Return whether a file is the record of a slide that nuclix wrote."""
    content = _read_json(path)
    return {"format", "slide", "model", "settings"} <= content.keys()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.is_file() and not path.is_symlink() else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _inside(out: Path, output: object) -> Path | None:
    """Return the path of a result in the output folder; None for one that would lie outside."""
    path = out / str(output)
    if not isinstance(output, str) or ".." in Path(output).parts or Path(output).is_absolute():
        return None
    return None if path.is_symlink() else path


def from_ledger(row: LedgerRow, out: Path) -> KnownResult | None:
    """Return the result of a row of the ledger, or None where there is none in the output folder."""
    output = _inside(out, row.output)
    if output is None or not row.checksum:
        return None
    mpp = _mpp_of(row.record)
    return KnownResult(
        output, row.checksum, read_key(row.key), mpp, row.slide_state, row.output_state, row.content, None
    )


def from_record(path: Path, out: Path) -> KnownResult | None:
    """Return the result that a slide's record describes: a run may have been killed just after it wrote both."""
    content = _read_json(path)
    facts = content.get("result")
    output = _inside(out, facts.get("output")) if isinstance(facts, dict) else None
    if output is None or not isinstance(facts, dict) or not isinstance(facts.get("checksum"), str):
        return None
    record = {name: value for name, value in content.items() if name not in ("format", "versions")}
    row = {**facts, "record": record, "fingerprint": content.get("slide", {}).get("fingerprint")}
    state, hashed = facts.get("slide_state"), facts.get("content")
    return KnownResult(
        output, facts["checksum"], read_key(facts.get("key")), _mpp_of(content), state, None, hashed, row
    )


def _mpp_of(record: Mapping[str, Any]) -> float | None:
    slide = record.get("slide", {})
    mpp = slide.get("mpp") if isinstance(slide, Mapping) else None
    return float(mpp) if isinstance(mpp, int | float) else None
