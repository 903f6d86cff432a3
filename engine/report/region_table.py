"""``regions.csv``: one line per region of a run that was limited to regions."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.report.collect import FolderFacts, collect

COLUMNS = ("name", "slide", "region", "class", "area_mm2", "nuclei", "nuclei_per_mm2")


def write_region_table(out: Path, path: Path) -> None:
    """Write the table of an output folder, where any slide has regions.

    Parameters
    ----------
    out : Path
        The output folder of a run.
    path : Path
        The table. For each class of nuclei, where there are several, it has the columns ``nuclei: CLASS`` and
        ``fraction: CLASS``.

    Raises
    ------
    UsageError
        If there is no run.
    OutputError
        If the ledger can't be read or the table can't be written.
    """
    text = region_table(collect(out))
    try:
        if text:
            replace_file(path, text.encode("utf-8", "backslashreplace"))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def region_table(folder: FolderFacts) -> str:
    """Return the table as CSV text; empty where no slide has regions."""
    rows = [_row(slide.name, slide.path, region) for slide in folder.slides for region in slide.regions]
    if not rows:
        return ""
    text = io.StringIO()
    columns = dict.fromkeys((*COLUMNS, *(name for row in rows for name in row)))
    table = csv.DictWriter(text, tuple(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _row(name: str, path: str, region: Any) -> dict[str, Any]:
    nuclei, by_class = region["nuclei"], region["nuclei_by_class"]
    row = {
        "name": name,
        "slide": path,
        "region": region["name"],
        "class": region["class"],
        "area_mm2": f"{region['area_mm2']:.6g}",
        "nuclei": nuclei,
        "nuclei_per_mm2": f"{region['nuclei_per_mm2']:.6g}",
    }
    if len(by_class) > 1:
        row |= {f"nuclei: {kind}": count for kind, count in by_class.items()}
        row |= {f"fraction: {kind}": f"{count / nuclei:.6g}" if nuclei else "" for kind, count in by_class.items()}
    return row
