"""``summary.csv``: one line per slide of an output folder, for spreadsheets and statistics."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from nuclix.engine.batch.layout import report_path
from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file
from nuclix.engine.report.collect import FolderFacts, SlideFacts, collect
from nuclix.engine.segmentation.summary import area_quantiles, read_summary

_QUARTILES = (0.25, 0.5, 0.75)
_BY_CLASS = ("nuclei", "nuclei_per_mm2")
COLUMNS = (
    *("name", "slide", "state", "nuclei", "tissue_mm2", "nuclei_per_mm2"),
    *("mean_area_um2", "area_q25_um2", "median_area_um2", "area_q75_um2"),
    *("width_px", "height_px", "mpp", "model", "model_sha256", "wall_s", "error", "warnings"),
)


def write_slide_table(out: Path, path: Path) -> None:
    """Write the table of an output folder.

    Parameters
    ----------
    out : Path
        The output folder of a run.
    path : Path
        The table. Where there are several classes, it has columns ``nuclei: CLASS`` and ``nuclei_per_mm2: CLASS``.

    Raises
    ------
    UsageError
        If there is no run.
    OutputError
        If the ledger can't be read or the table can't be written.
    """
    try:
        replace_file(path, slide_table(collect(out)).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def slide_table(folder: FolderFacts) -> str:
    """Return the table as CSV text."""
    classes = list(dict.fromkeys(item.name for slide in folder.slides for item in slide.classes))
    text = io.StringIO()
    columns = (*COLUMNS, *(f"{key}: {name}" for key in _BY_CLASS for name in classes))
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for slide in folder.slides:
        values = {**_row(slide, folder.out), **_by_class(slide)}
        table.writerow({name: _cell(value) for name, value in values.items()})
    return text.getvalue()


def _by_class(slide: SlideFacts) -> dict[str, Any]:
    counts, densities = _BY_CLASS
    return {
        **{f"{counts}: {item.name}": item.nuclei for item in slide.classes},
        **{f"{densities}: {item.name}": item.density for item in slide.classes},
    }


def _row(slide: SlideFacts, out: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": slide.name,
        "slide": slide.path,
        "state": slide.state,
        "nuclei": slide.nuclei,
        "tissue_mm2": slide.tissue_mm2,
        "nuclei_per_mm2": slide.density,
        "width_px": slide.width,
        "height_px": slide.height,
        "mpp": slide.mpp,
        "model": slide.model.get("name"),
        "model_sha256": slide.model.get("sha256"),
        "wall_s": slide.seconds.get("wall"),
        "error": slide.error,
        "warnings": "; ".join(slide.warnings),
    }
    summary = read_summary(report_path(out, slide.name, ".npz")) if slide.nuclei else None
    if summary is not None and summary.counts.sum():
        quartiles = area_quantiles(summary.areas, _QUARTILES) or ("", "", "")
        found["mean_area_um2"] = summary.area_sum / int(summary.counts.sum())
        found |= dict(zip(("area_q25_um2", "median_area_um2", "area_q75_um2"), quartiles, strict=True))
    return found


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
