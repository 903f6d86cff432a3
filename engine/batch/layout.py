"""The files of an output folder: the only module that knows their names.

::

    OUT/NAME.geojson, NAME.json         result and record of a slide
    OUT/.NAME.checkpoint/               committed objects of a slide in progress
    OUT/.nuclix/slides/NAME.jpg, .npz   thumbnail and summary, for the report
    OUT/.nuclix/objects/NAME.npz        finished objects, from which further formats are written
    OUT/.nuclix/remote/                 copies of slides that were given as https:// or s3:// addresses
    OUT/.nuclix/runs/                   status of each run
    OUT/summary.csv                     one line per slide
    OUT/regions.csv                     one line per region, where a run was limited to regions
    OUT/nuclix-index.json               the result file of each slide, for import into QuPath
    OUT/nuclix.db, run.log, report.html, .nuclix.lock
    OUT/report-slides/NAME.html         page of each slide
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.errors import OutputError
from nuclix.engine.files import sweep_temporaries
from nuclix.engine.segmentation.slide_files import SlidePaths

LEDGER_NAME = "nuclix.db"
LOCK_NAME = ".nuclix.lock"
LOG_NAME = "run.log"
REPORT_NAME = "report.html"
INDEX_NAME = "nuclix-index.json"
SUMMARY_NAME = "summary.csv"
REGIONS_NAME = "regions.csv"
_HIDDEN = ".nuclix"
_PROBE = ".nuclix-probe-"


def slide_paths(out: Path, job: SlideJob) -> SlidePaths:
    """Return the paths of a slide's files in the output folder, or in a sub-folder of it.

    Parameters
    ----------
    out : Path
        The output folder.
    job : SlideJob
        The slide.
    """
    stem = out / Path(job.name)
    return SlidePaths(
        slide=job.path,
        out=out,
        stem=stem,
        record=_with_suffix(stem, ".json"),
        checkpoint=stem.with_name(f".{stem.name}.checkpoint"),
        thumbnail=report_path(out, str(job.name), ".jpg"),
        summary=report_path(out, str(job.name), ".npz"),
        objects=objects_path(out, str(job.name)),
    )


def report_path(out: Path, name: str, suffix: str) -> Path:
    """Return the path of a slide's data for the report: ``.npz`` its summary, ``.jpg`` its thumbnail."""
    return _with_suffix(out / _HIDDEN / "slides" / PurePosixPath(name), suffix)


def slide_page_path(report: Path, name: str) -> Path:
    """Return the path of a slide's page: in a folder next to the report, which may lie outside the output folder."""
    return _with_suffix(report.with_name(f"{report.stem}-slides") / PurePosixPath(name), ".html")


def objects_path(out: Path, name: str) -> Path:
    """Return the path of a slide's stored objects."""
    return _with_suffix(out / _HIDDEN / "objects" / PurePosixPath(name), ".npz")


def remote_folder(out: Path) -> Path:
    """Return the folder with copies of slides that were given by their addresses."""
    return out / _HIDDEN / "remote"


def runs_folder(out: Path) -> Path:
    """Return the folder with the status file of each run."""
    return out / _HIDDEN / "runs"


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def prepare_folder(out: Path) -> None:
    """Create the output folder and check that it can be written.

    Parameters
    ----------
    out : Path
        The output folder.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    probe = out / f"{_PROBE}{secrets.token_hex(8)}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with probe.open("xb"):
            pass
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise _failure(out, error) from error


def remove_temporaries(out: Path, jobs: Sequence[SlideJob]) -> None:
    """Remove unfinished files of runs that were killed; for the process that holds the folder's lock.

    Parameters
    ----------
    out : Path
        The output folder.
    jobs : sequence of SlideJob
        The slides of the run: only folders with files of theirs are searched.

    Raises
    ------
    OutputError
        If a file can't be removed.
    """
    parents = {job.name.parent for job in jobs}
    roots = (out, out / _HIDDEN / "slides", out / _HIDDEN / "objects")
    folders = {out, *(root / parent for root in roots for parent in parents)}
    try:
        sweep_temporaries(folders)
        for probe in out.glob(f"{_PROBE}*"):
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise _failure(out, error) from error


def _failure(out: Path, error: OSError) -> OutputError:
    return OutputError(f"{out}: the output folder can't be written: {error.strerror}")
