"""The index of an output folder: which result file belongs to which slide, found by the slide's URI."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nuclix.engine.batch.known_results import recorded_outputs
from nuclix.engine.batch.layout import INDEX_NAME
from nuclix.engine.batch.ledger import DONE, Ledger, LedgerRow
from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file

INDEX_FORMAT = 1
# The files that QuPath imports, in the order of preference: a zip needs the least memory.
_IMPORTED = (".zip", ".geojson", ".geojson.gz")


def write_index(out: Path) -> Path:
    """Write the index of an output folder.

    Parameters
    ----------
    out : Path
        The output folder of a run.

    Returns
    -------
    Path
        The index: a JSON object with ``slides``, a list of name, file name, URIs, size in pixels as QuPath shows it,
        number of nuclei and result file, relative to the index.

    Raises
    ------
    OutputError
        If the ledger can't be read or the index can't be written.
    """
    path = out / INDEX_NAME
    ledger = Ledger(out, read_only=True)
    try:
        rows = ledger.rows()
    finally:
        ledger.close()
    known = {str(item.get("name")): item for item in read_index(path)}
    slides = [_entry(row, out, known.get(row.name, {})) for row in rows if row.state == DONE]
    content = {"format": INDEX_FORMAT, "slides": slides}
    try:
        # A file's name may hold bytes that are no text; Python's escapes for them are JSON's too.
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error
    return path


def read_index(path: Path) -> list[Mapping[str, Any]]:
    """Return the slides of an index; none where there is no index that can be read."""
    try:
        content = json.loads(path.read_bytes())
        return list(content["slides"]) if content["format"] == INDEX_FORMAT else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _entry(row: LedgerRow, out: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    slide = row.record.get("slide", {})
    bounds = slide.get("bounds") or {}
    slide_path = Path(row.path)
    # The ledger has the path as it was given: one that is relative to another folder than this was resolved before.
    lost = not slide_path.is_absolute() and not slide_path.exists()
    uris = list(known["uris"]) if lost and known.get("uris") else slide_uris(slide_path)
    return {
        "name": row.name,
        "file": slide_path.name,
        "uris": uris,
        "width": bounds.get("width") or slide.get("width"),
        "height": bounds.get("height") or slide.get("height"),
        "vendor": slide.get("vendor"),
        "nuclei": row.record.get("counts", {}).get("nuclei"),
        "classes": row.record.get("model", {}).get("classes", []),
        "result": _result(row, out),
    }


def _result(row: LedgerRow, out: Path) -> str | None:
    """Return the file to import, or None where no format was written that QuPath reads."""
    paths = [str(item["path"]) for item in recorded_outputs(row)]
    for suffix in _IMPORTED:
        for path in paths:
            if path.endswith(suffix) and (out / path).is_file():
                return path
    return None


def slide_uris(path: Path) -> list[str]:
    """Return the URIs under which a slide may be open: as it was named, and with links resolved."""
    named = Path(os.path.abspath(path))  # noqa: PTH100 (keeps links, which `resolve` follows)
    return list(dict.fromkeys((named.as_uri(), path.resolve().as_uri())))
