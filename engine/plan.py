"""What a run has to do: which slides are done already, and what the others' results would depend on."""

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
from nuclix.engine.contracts import Writer
from nuclix.engine.errors import OutputError, SlideError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.ledger import DONE, LedgerRow
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import fingerprint
from nuclix.engine.slide_run import checksum, spool_folder, target

# Slides looked at side by side: what takes time is the share that answers, and the checksums of results.
_LOOKERS = 8


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """What a look at a slide and at its results has found.

    Attributes
    ----------
    job : SlideJob
        The slide.
    size : int
        Bytes of its file.
    mark, key : str
        Its fingerprint, and what its result depends on.
    done : bool
        Whether the result is there already.
    notice : str
        Why there is a result that does not count; empty where there is none.
    outdated : tuple of Path
        Results of another model, setting or slide, to be removed when work begins.
    foreign : Path or None
        A file where the result shall stand that no run of nuclix left there so, to be moved aside.
    error : str
        Why the slide can't be looked at; empty if it can.
    """

    job: SlideJob
    size: int = 0
    mark: str = ""
    key: str = ""
    done: bool = False
    notice: str = ""
    outdated: tuple[Path, ...] = ()
    foreign: Path | None = None
    error: str = ""


def request_key(mark: str, model_hash: str, settings: RunSettings) -> str:
    """Return what a slide's result depends on.

    Not in it: blocks and workers, for they do not show, and the device, for it is where and not what; each record
    says which one it was.

    Parameters
    ----------
    mark : str
        The slide's fingerprint.
    model_hash : str
        The model file's SHA-256.
    settings : RunSettings
        What was asked.

    Returns
    -------
    str
        JSON.
    """
    return json.dumps(
        {
            "slide": mark,
            "model": model_hash,
            "nuclix": version("nuclix"),
            "mpp": settings.mpp,
            "precision": settings.precision,
            "flips": settings.flips,
            "tissue": settings.tissue,
            "writer": settings.writer,
        }
    )


def make_plans(
    jobs: Sequence[SlideJob], rows: Mapping[str, LedgerRow], model_hash: str, settings: RunSettings
) -> list[SlidePlan]:
    """Look at every slide and at what the ledger says of it.

    Parameters
    ----------
    jobs : sequence of SlideJob
        The slides.
    rows : mapping of str to LedgerRow
        What the ledger knows, by name.
    model_hash : str
        The model file's SHA-256.
    settings : RunSettings
        What was asked.

    Returns
    -------
    list of SlidePlan
        In the order of `jobs`.

    Raises
    ------
    PluginError
        If there is no such writer.
    """
    writer = cast(type[Writer], registry.load(registry.WRITERS, settings.writer))

    def look(job: SlideJob) -> SlidePlan:
        try:
            size, mark = job.path.stat().st_size, fingerprint(job.path)
        except OSError as error:
            return SlidePlan(job, error=f"{job.path}: can't be read: {error.strerror}")
        except SlideError as error:
            return SlidePlan(job, error=str(error))
        found = SlidePlan(job, size, mark, request_key(mark, model_hash, settings))
        row = rows.get(str(job.name))
        if row is not None and row.output is not None:
            return _judged(found, row, settings.out)
        return _unvouched(found, settings.out, writer.suffix)

    with ThreadPoolExecutor(_LOOKERS, "nuclix-plan") as pool:
        return list(pool.map(look, jobs))


def _judged(plan: SlidePlan, row: LedgerRow, out: Path) -> SlidePlan:
    """Say what the result that the ledger knows of is worth."""
    name, output = plan.job.path.name, out / str(row.output)
    if not output.is_file():
        return replace(plan, notice=f"{name}: its result {output} is missing; it will be made again")
    if checksum(output) != row.checksum:
        notice = f"{name}: its result {output} was changed; it will be moved aside and made again"
        return replace(plan, notice=notice, foreign=output)
    if row.key != plan.key:
        changed = ", ".join(_differences(row.key, plan.key))
        notice = f"{name}: has a result of another {changed}; it will be replaced"
        return replace(plan, notice=notice, outdated=(output, target(out, plan.job, ".json")))
    return replace(plan, done=row.state == DONE)


def _unvouched(plan: SlidePlan, out: Path, suffix: str) -> SlidePlan:
    """Look for a file in the result's place; with a spool beside it, it is the result of a run that was killed."""
    output = target(out, plan.job, suffix)
    if not output.exists() or spool_folder(out, plan.job).exists():
        return plan
    notice = f"{plan.job.path.name}: {output} is not known to be its result; it will be moved aside"
    return replace(plan, notice=notice, foreign=output)


def make_room(plan: SlidePlan) -> None:
    """Take away what stands where the slide's result shall be.

    Results of another model, setting or slide are removed; a file of unknown origin, which may be someone's work,
    gets another name.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """
    try:
        for path in plan.outdated:
            path.unlink(missing_ok=True)
        if plan.foreign is not None and plan.foreign.exists():
            plan.foreign.rename(_free_name(plan.foreign))
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
