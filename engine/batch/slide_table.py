"""Tables of slides: a CSV with the columns ``path`` and ``mpp``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nuclix.engine.batch.discover import Discovery, SlideJob, discover
from nuclix.engine.batch.layout import remote_folder
from nuclix.engine.batch.remote import local_inputs
from nuclix.engine.errors import UsageError
from nuclix.engine.run_config import COARSEST_MPP, FINEST_MPP, RunConfig
from nuclix.engine.slide.region_file import box_regions
from nuclix.engine.slide.scale import UserScale, configured_scale
from nuclix.engine.slide.side_files import check_side_files

_PATH, _MPP = "path", "mpp"


@dataclass(frozen=True, slots=True)
class SlideTable:
    """The slides of a table.

    Attributes
    ----------
    path : Path
        The table.
    mpp : mapping of Path to float or None
        um/px at full resolution of each slide, None where the table gives none.
    """

    path: Path
    mpp: Mapping[Path, float | None]


def read_slide_table(path: Path) -> SlideTable:
    """Read a table of slides.

    Parameters
    ----------
    path : Path
        CSV with a header. The column ``path`` is required (relative paths start at the table's folder), ``mpp`` may
        be empty, other columns are ignored.

    Returns
    -------
    SlideTable

    Raises
    ------
    UsageError
        If the file can't be read or a row can't be used; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            names = [(name or "").strip().lower() for name in rows.fieldnames or ()]
            if _PATH not in names:
                raise UsageError(f"{path}: has no column {_PATH!r} (columns: {', '.join(names) or 'none'})")
            rows.fieldnames = names
            return SlideTable(path, dict(_slides(path, rows)))
    except OSError as error:
        raise UsageError(f"{path}: the table of slides can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _slides(path: Path, rows: csv.DictReader[str]) -> Iterator[tuple[Path, float | None]]:
    seen: set[Path] = set()
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        name = (row[_PATH] or "").strip()
        if not name:
            raise UsageError(f"{where}: the column {_PATH!r} is empty")
        slide = (path.parent / name).resolve()
        if slide in seen:
            raise UsageError(f"{where}: {name} is listed twice")
        seen.add(slide)
        yield slide, _mpp(where, (row.get(_MPP) or "").strip())


def _mpp(where: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{where}: mpp must be a number (um/px), not {text!r}") from None
    if not FINEST_MPP <= value <= COARSEST_MPP:
        raise UsageError(f"{where}: mpp must be between {FINEST_MPP:g} and {COARSEST_MPP:g} um/px, not {text}")
    return value


def with_scales(jobs: Sequence[SlideJob], config: RunConfig, table: SlideTable | None) -> tuple[SlideJob, ...]:
    """Give each slide what the user says of its scale: the table's um/px, else that of the options.

    Parameters
    ----------
    jobs : sequence of SlideJob
        The slides.
    config : RunConfig
        The options.
    table : SlideTable or None
        The table of slides.
    """
    usual = configured_scale(config)
    values = table.mpp if table is not None else {}
    name = table.path.name if table is not None else ""

    def scale(job: SlideJob) -> UserScale:
        mpp = values.get(job.path.resolve())
        return usual if mpp is None else UserScale(mpp, name, overrules=True)

    return tuple(replace(job, scale=scale(job)) for job in jobs)


def list_slides(config: RunConfig, known: Mapping[str, str] | None = None, *, download: bool = False) -> Discovery:
    """Return the slides of a run: those of its inputs and of its table, with what the user says of their scales.

    Parameters
    ----------
    config : RunConfig
        The options.
    known : mapping of str to str, optional
        See `discover`.
    download : bool
        Whether slides at addresses are copied into the output folder, where they are not there yet.

    Raises
    ------
    UsageError
        If an input matches nothing, or the table can't be used.
    """
    table = read_slide_table(Path(config.slides)) if config.slides is not None else None
    listed = tuple(str(path) for path in table.mpp) if table is not None else ()
    out = config.output_folder
    inputs = local_inputs(config.inputs, remote_folder(out), download=download)
    found = discover((*inputs.paths, *listed), config.output_folder, known, inputs.problems)
    check_side_files(config.regions, len(found.jobs), "--regions")
    check_side_files(config.tissue_mask, len(found.jobs), "--tissue-mask")
    box_regions(config.region)
    return replace(found, jobs=with_scales(found.jobs, config, table))
