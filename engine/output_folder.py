"""The output folder before a run: it must be writable, and is freed of what killed runs left half written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nuclix.engine.errors import OutputError
from nuclix.engine.files import sweep_temporaries
from nuclix.engine.inputs import SlideJob
from nuclix.engine.report.density import sketch_path
from nuclix.engine.slide_run import target

_PROBE = ".nuclix-probe-"


def prepare_folder(out: Path) -> None:
    """Make the output folder and find out at once, not after hours, whether it can be written.

    Parameters
    ----------
    out : Path
        The output folder.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    probe = out / f"{_PROBE}{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise _failure(out, error) from error


def clear_away(out: Path, jobs: Sequence[SlideJob]) -> None:
    """Remove files that killed runs have left half written; for the process that holds the folder's lock.

    Parameters
    ----------
    out : Path
        The output folder.
    jobs : sequence of SlideJob
        The slides of the run: only folders where their files go are looked at.

    Raises
    ------
    OutputError
        If something can't be removed.
    """
    folders = {out, *(target(out, job, "").parent for job in jobs)}
    folders |= {sketch_path(out, str(job.name), "").parent for job in jobs}
    try:
        sweep_temporaries(folders)
        for probe in out.glob(f"{_PROBE}*"):
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise _failure(out, error) from error


def _failure(out: Path, error: OSError) -> OutputError:
    return OutputError(f"{out}: the output folder can't be written: {error.strerror}")
