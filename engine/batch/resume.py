"""Check on restart which slides are finished, and what the results of the others depend on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, LedgerRow
from nuclix.engine.batch.outputs import check_outputs
from nuclix.engine.errors import OutputError, SlideError
from nuclix.engine.run_config import RunConfig, result_settings
from nuclix.engine.segmentation.classes import class_map_hash
from nuclix.engine.segmentation.outputs import WritersByFormat, load_writers
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
    unrecognised : tuple of Path
        Files in the place of results that nuclix did not write, to be moved aside.
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
    unrecognised: tuple[Path, ...] = ()
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
        If there is no such writer, or it lacks a library.
    UsageError
        If two formats would write the same file.
    """
    writers = load_writers(config.format)

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
            return _check_ledger_entry(found, row, config, writers)
        return _check_unrecorded_files(found, config.output_folder, writers)

    with ThreadPoolExecutor(_THREADS, "nuclix-check") as pool:
        return list(pool.map(check, jobs))


def _check_ledger_entry(slide: SlideCheck, row: LedgerRow, config: RunConfig, writers: WritersByFormat) -> SlideCheck:
    """Check the result files that the ledger knows of."""
    name, paths = slide.job.path.name, slide_paths(config.output_folder, slide.job)
    found = check_outputs(row, paths.stem, config, writers)
    slide = replace(slide, unrecognised=found.changed)
    if row.key != slide.key:
        changed = ", ".join(_differences(row.key, slide.key))
        notice = f"{name}: the existing result was made with a different {changed}; recomputing"
        return replace(slide, notice=notice, stale=(*found.known, paths.record, paths.objects))
    again = "writing it again" if paths.objects.is_file() else "recomputing"
    if found.changed:
        files = ", ".join(map(str, found.changed))
        return replace(slide, notice=f"{name}: the result {files} was changed; moving it aside and {again}")
    if found.deleted and found.missing:
        return replace(slide, notice=f"{name}: the result {found.deleted[0]} is missing; {again}")
    if found.missing and row.state == DONE:
        return replace(slide, notice=f"{name}: adding {', '.join(found.missing)} to the finished result")
    return replace(slide, done=row.state == DONE)


def _check_unrecorded_files(slide: SlideCheck, out: Path, writers: WritersByFormat) -> SlideCheck:
    """Look for files in the results' places; with a checkpoint, they are the results of a run that was killed."""
    paths = slide_paths(out, slide.job)
    there = tuple(path for writer in writers.values() if (path := paths.result(writer.suffix)).exists())
    if not there or paths.checkpoint.exists():
        return slide
    files = ", ".join(map(str, there))
    notice = f"{slide.job.path.name}: {files} was not written by nuclix for this slide; moving it aside"
    return replace(slide, notice=notice, unrecognised=there)


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
        for path in slide.unrecognised:
            if path.exists():
                path.rename(free_name(path))
    except OSError as error:
        raise OutputError(f"{error.filename}: can't be removed: {error.strerror}") from error


def free_name(path: Path) -> Path:
    """Return ``name.bak``, or the first of ``name.bak2``, ``name.bak3``, ... that is free."""
    names = itertools.chain([f"{path.name}.bak"], (f"{path.name}.bak{number}" for number in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name)).exists())


def _differences(old: str | None, new: str) -> list[str]:
    """Return the names of what differs between two keys."""
    before, now = json.loads(old or "{}"), json.loads(new)
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
