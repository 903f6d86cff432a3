"""Check on restart which slides are finished, and what the results of the others depend on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

from nuclix.engine import registry
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, LedgerRow
from nuclix.engine.contracts import Writer
from nuclix.engine.errors import OutputError, SlideError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig, result_settings
from nuclix.engine.segmentation.classes import class_map_hash
from nuclix.engine.slide.open import fingerprint

# Slides checked concurrently: most of the time goes into waiting for a network share.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class SlideCheck:
    """A slide of the run, and the state of its existing result.

    Attributes
    ----------
    job : SlideJob
        The slide.
    size : int
        Bytes of its file.
    fingerprint, key : str
        Its fingerprint, and what its result depends on.
    done : bool
        Whether the result is there already.
    notice : str
        Why an existing result is not used; empty where there is none.
    stale : tuple of Path
        Results of another model, option or slide, to be removed when processing starts.
    unrecognised : Path or None
        A file in the place of the result that nuclix did not write, to be moved aside.
    error : str
        Why the slide can't be read; empty if it can.
    """

    job: SlideJob
    size: int = 0
    fingerprint: str = ""
    key: str = ""
    done: bool = False
    notice: str = ""
    stale: tuple[Path, ...] = ()
    unrecognised: Path | None = None
    error: str = ""


def request_key(slide_fingerprint: str, model_hash: str, config: RunConfig) -> str:
    """Return what a slide's result depends on.

    Block size and threads are not in it, because results do not depend on them; neither is the device, which each
    record states.

    Parameters
    ----------
    slide_fingerprint : str
        The slide's fingerprint.
    model_hash : str
        The model file's SHA-256.
    config : RunConfig
        The options of the run.

    Returns
    -------
    str
        JSON.
    """
    facts = {"slide": slide_fingerprint, "model": model_hash, "nuclix": version("nuclix")}
    return json.dumps({**facts, **result_settings(config), **class_map_hash(config.class_map)})


def check_results(
    jobs: Sequence[SlideJob], rows: Mapping[str, LedgerRow], model_hash: str, config: RunConfig
) -> list[SlideCheck]:
    """Check every slide and what the ledger knows of its result.

    Parameters
    ----------
    jobs : sequence of SlideJob
        The slides.
    rows : mapping of str to LedgerRow
        The rows of the ledger, by name.
    model_hash : str
        The model file's SHA-256.
    config : RunConfig
        The options of the run.

    Returns
    -------
    list of SlideCheck
        In the order of `jobs`.

    Raises
    ------
    PluginError
        If there is no such writer.
    """
    writer = cast(type[Writer], registry.load(registry.WRITERS, config.writer))

    out = config.output_folder

    def check(job: SlideJob) -> SlideCheck:
        try:
            size, mark = job.path.stat().st_size, fingerprint(job.path)
        except OSError as error:
            return SlideCheck(job, error=f"{job.path}: can't be read: {error.strerror}")
        except SlideError as error:
            return SlideCheck(job, error=str(error))
        found = SlideCheck(job, size, mark, request_key(mark, model_hash, config))
        row = rows.get(str(job.name))
        if row is not None and row.output is not None:
            return _check_ledger_entry(found, row, out)
        return _check_unrecorded_file(found, out, writer.suffix)

    with ThreadPoolExecutor(_THREADS, "nuclix-check") as pool:
        return list(pool.map(check, jobs))


def _check_ledger_entry(slide: SlideCheck, row: LedgerRow, out: Path) -> SlideCheck:
    """Check the result that the ledger knows of."""
    name, output = slide.job.path.name, out / str(row.output)
    if not output.is_file():
        return replace(slide, notice=f"{name}: the result {output} is missing; recomputing")
    if checksum(output) != row.checksum:
        notice = f"{name}: the result {output} was changed; moving it aside and recomputing"
        return replace(slide, notice=notice, unrecognised=output)
    if row.key != slide.key:
        changed = ", ".join(_differences(row.key, slide.key))
        notice = f"{name}: the existing result was made with a different {changed}; recomputing"
        return replace(slide, notice=notice, stale=(output, slide_paths(out, slide.job).record))
    return replace(slide, done=row.state == DONE)


def _check_unrecorded_file(slide: SlideCheck, out: Path, suffix: str) -> SlideCheck:
    """Look for a file in the result's place; with a checkpoint, it is the result of a run that was killed."""
    paths = slide_paths(out, slide.job)
    output = paths.result(suffix)
    if not output.exists() or paths.checkpoint.exists():
        return slide
    notice = f"{slide.job.path.name}: {output} was not written by nuclix for this slide; moving it aside"
    return replace(slide, notice=notice, unrecognised=output)


def discard_stale(slide: SlideCheck) -> None:
    """Clear the place of the slide's result.

    Results of another model, option or slide are removed; a file of unknown origin, which may be someone's work,
    is renamed.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """
    try:
        for path in slide.stale:
            path.unlink(missing_ok=True)
        if slide.unrecognised is not None and slide.unrecognised.exists():
            slide.unrecognised.rename(_free_name(slide.unrecognised))
    except OSError as error:
        raise OutputError(f"{error.filename}: can't be removed: {error.strerror}") from error


def _free_name(path: Path) -> Path:
    """Return ``name.bak``, or the first of ``name.bak2``, ``name.bak3``, ... that is free."""
    names = itertools.chain([f"{path.name}.bak"], (f"{path.name}.bak{number}" for number in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name)).exists())


def _differences(old: str | None, new: str) -> list[str]:
    """Return the names of what differs between two keys."""
    before, now = json.loads(old or "{}"), json.loads(new)
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
