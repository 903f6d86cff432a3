"""Check on restart which slides are finished.

A result is judged by what it was made from and by its bytes, not by how the last run ended: it is finished if the
slide, the model and the options that it depends on are those of this run, and if the file is the one that was
written. Nothing is deleted here: an older result stays until a new one is renamed over it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, cast

from nuclix.engine import registry
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.known_results import KnownResult, from_ledger, from_record, is_record
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, LedgerRow
from nuclix.engine.contracts import Writer
from nuclix.engine.errors import Interrupted, SlideError, UsageError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.result_key import differences, read_key, result_key
from nuclix.engine.slide.identity import content_hash, file_state, slide_state
from nuclix.engine.slide.open import fingerprint

# Slides checked concurrently: most of the time is spent waiting for a network share.
_THREADS = 8
# Examples that a message names of each reason.
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class SlideCheck:
    """A slide of the run, and the state of its existing result.

    Attributes
    ----------
    job : SlideJob
        The slide.
    size : int
        Bytes of its files.
    fingerprint : str
        Its fingerprint; empty where a finished result made it unnecessary to look.
    done : bool
        Whether the result is finished.
    states : mapping of str to str
        Of a finished slide whose row in the ledger must be updated: ``slide_state`` and ``output_state`` as they are.
    result : mapping
        Of a finished slide that the ledger does not know: what the ledger should hold.
    notice : str
        What the user should know of an existing file.
    changed : tuple of str
        What differs from the run in which a finished result was made; empty where there is none.
    set_aside : tuple of Path
        Files in the place of the slide's own that nuclix did not write: copies of them are kept.
    error : str
        Why the slide can't be read; empty if it can.
    interrupted : bool
        Whether an earlier run has left a checkpoint of the slide.
    """

    job: SlideJob
    size: int = 0
    fingerprint: str = ""
    done: bool = False
    states: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    notice: str = ""
    changed: tuple[str, ...] = ()
    set_aside: tuple[Path, ...] = ()
    error: str = ""
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class CheckHooks:
    """What may happen while slides are checked.

    Attributes
    ----------
    should_stop : callable
        Is asked often.
    on_doubt : callable
        Is called once, before the first file is read whole.
    """

    should_stop: Callable[[], bool] = lambda: False
    on_doubt: Callable[[], None] = lambda: None


class ResultChecker:
    """Checks slides against what an output folder holds.

    Parameters
    ----------
    config : RunConfig
        The options of the run.
    model : str
        The model file's SHA-256.
    rows : mapping of str to LedgerRow
        The rows of the ledger, by name.
    hooks : CheckHooks
        See there.

    Raises
    ------
    PluginError
        If there is no such writer.
    """

    def __init__(
        self, config: RunConfig, model: str, rows: Mapping[str, LedgerRow], hooks: CheckHooks | None = None
    ) -> None:
        self._config = config
        self._out = config.output_folder
        self._model = model
        self.rows = rows
        self._hooks = hooks or CheckHooks()
        self._writer = cast(type[Writer], registry.load(registry.WRITERS, config.writer))
        self._doubt_lock = Lock()
        self._doubted = False

    def check(self, job: SlideJob) -> SlideCheck:
        """Check one slide.

        Raises
        ------
        Interrupted
            If the hooks ask to stop.
        """
        if self._hooks.should_stop():
            raise Interrupted("the check of existing results was interrupted")
        try:
            return self._check(job)
        except OSError as error:
            path = error.filename or job.path
            return SlideCheck(job, error=f"{path}: can't be read or written: {error.strerror}")

    def _check(self, job: SlideJob) -> SlideCheck:
        paths = slide_paths(self._out, job)
        if paths.checkpoint.is_symlink():
            return SlideCheck(job, error=f"{paths.checkpoint}: is a link, which nuclix never makes; remove it")
        known, notice = self._intact_result(job)
        try:
            state = slide_state(job.path)
        except SlideError as error:
            return self._unreadable(job, known, str(error))
        found = SlideCheck(job, state.size, notice=notice, interrupted=paths.checkpoint.exists())
        if known is not None and known.slide_state == state.text:
            mark = str(known.key.get("slide", ""))
        else:
            try:
                mark = fingerprint(job.path)
            except SlideError as error:
                return self._unreadable(job, known, str(error))
        found = replace(found, fingerprint=mark)
        if known is None:
            return self._with_foreign_files(found)
        if mark == known.key.get("slide") and known.slide_state != state.text and not self._same_content(job, known):
            mark = f"{mark} with other content"
        changed = self._changes(job, known, mark)
        if changed:
            return replace(found, changed=changed)
        return self._finished(found, known, state.text)

    def _finished(self, slide: SlideCheck, known: KnownResult, state: str) -> SlideCheck:
        """Return the check of a finished slide, with what the ledger should be told."""
        states = {"slide_state": state, "output_state": file_state(known.output)}
        row = self.rows.get(str(slide.job.name))
        current = row is not None and row.state == DONE and not known.row
        if current and row is not None and states == {"slide_state": row.slide_state, "output_state": row.output_state}:
            states = {}
        return replace(slide, done=True, states=states, result=known.row or {})

    def _unreadable(self, job: SlideJob, known: KnownResult | None, error: str) -> SlideCheck:
        """Return the check of a slide that can't be read now: a finished result of these options stays finished."""
        if known is None or self._changes(job, known, str(known.key.get("slide"))):
            return SlideCheck(job, error=error)
        notice = f"{error}; its finished result {known.output} is kept"
        return self._finished(SlideCheck(job, notice=notice), known, known.slide_state or "")

    def _changes(self, job: SlideJob, known: KnownResult, mark: str) -> tuple[str, ...]:
        """Return what differs between a known result and the one that this run would make."""
        used = known.key.get("mpp")
        asked = job.scale.mpp
        same = asked is None or (used is None and not job.scale.overrules) or asked in (used, known.mpp)
        wanted = read_key(result_key(mark, self._model, self._config, used if same else asked))
        return differences(known.key, wanted)

    def _same_content(self, job: SlideJob, known: KnownResult) -> bool:
        """Return whether every byte of the slide is as before; True where that was not recorded."""
        if known.content is None:
            return True
        self._announce_doubt()
        return content_hash(job.path, self._hooks.should_stop) == known.content

    def _announce_doubt(self) -> None:
        with self._doubt_lock:
            first, self._doubted = not self._doubted, True
        if first:
            self._hooks.on_doubt()

    def _intact_result(self, job: SlideJob) -> tuple[KnownResult | None, str]:
        """Return the finished result that ledger or record describe, and a notice where the ledger's is not there."""
        name, notice = job.path.name, ""
        row = self.rows.get(str(job.name))
        known = from_ledger(row, self._out) if row is not None else None
        if known is not None:
            if not known.output.is_file():
                notice = f"{name}: the result {known.output} is missing; computing it again"
            elif self._is_intact(known):
                return known, ""
            else:
                notice = f"{name}: the result {known.output} was changed; a copy is kept, computing it again"
        written = from_record(slide_paths(self._out, job).record, self._out)
        if written is not None and written.output.is_file() and self._is_intact(written):
            return written, ""
        return None, notice

    def _is_intact(self, known: KnownResult) -> bool:
        if known.output_state is not None and known.output_state == file_state(known.output):
            return True
        self._announce_doubt()
        return checksum(known.output) == known.checksum

    def _with_foreign_files(self, slide: SlideCheck) -> SlideCheck:
        """Add the files in the place of the slide's own that nuclix did not write, as far as is known."""
        paths = slide_paths(self._out, slide.job)
        result, record = paths.result(self._writer.suffix), paths.record
        found = [result] if os.path.lexists(result) else []
        if os.path.lexists(record) and not is_record(record):
            found.append(record)
        # With a checkpoint the result is most likely that of a run which was killed as it ended.
        if found and not slide.notice and not (found == [result] and paths.checkpoint.exists()):
            names = " and ".join(map(str, found))
            notice = f"{slide.job.path.name}: {names}: not written by nuclix for this slide; a copy is kept"
            slide = replace(slide, notice=notice)
        return replace(slide, set_aside=tuple(found))


def check_results(jobs: Sequence[SlideJob], checker: ResultChecker) -> list[SlideCheck]:
    """Check every slide.

    Parameters
    ----------
    jobs : sequence of SlideJob
        The slides.
    checker : ResultChecker
        Knows the output folder.

    Returns
    -------
    list of SlideCheck
        In the order of `jobs`.

    Raises
    ------
    Interrupted
        If the checker's hooks ask to stop.
    """
    with ThreadPoolExecutor(_THREADS, "nuclix-check") as pool:
        return list(pool.map(checker.check, jobs))


def require_consent(slides: Iterable[SlideCheck], config: RunConfig) -> list[SlideCheck]:
    """Ask before finished results are replaced.

    Parameters
    ----------
    slides : iterable of SlideCheck
        The slides of the run.
    config : RunConfig
        Its `recompute` says what to do with finished results that were made differently.

    Returns
    -------
    list of SlideCheck
        The slides, those whose results are kept as done.

    Raises
    ------
    UsageError
        If there are such results and `recompute` is not set.
    """
    slides = list(slides)
    stale = [slide for slide in slides if slide.changed]
    if stale and config.recompute is None:
        raise UsageError(
            f"{config.out}: {len(stale)} finished {'result was' if len(stale) == 1 else 'results were'} made "
            f"differently ({stale_reasons(stale)}) and would be computed again. Nothing was changed. "
            "Give --recompute to replace them, --no-recompute to keep them, or use another --out"
        )
    if config.recompute is False:
        return [_kept(slide) if slide.changed else slide for slide in slides]
    return [
        replace(slide, notice=f"{slide.job.path.name}: computing again, {stale_reasons([slide])} changed")
        if slide.changed
        else slide
        for slide in slides
    ]


def _kept(slide: SlideCheck) -> SlideCheck:
    notice = f"{slide.job.path.name}: the result made with another {', '.join(slide.changed)} is kept"
    return replace(slide, done=True, notice=notice, states={})


def stale_reasons(slides: Iterable[SlideCheck]) -> str:
    """Return what differs and for which slides, such as ``model: a.svs, b.svs and 7 more; tta: c.svs``."""
    slides = list(slides)
    if len(slides) == 1:
        return ", ".join(slides[0].changed)
    counts = Counter(", ".join(slide.changed) for slide in slides)
    parts = []
    for reason, count in counts.most_common():
        names = [slide.job.path.name for slide in slides if ", ".join(slide.changed) == reason]
        more = f" and {count - _EXAMPLES} more" if count > _EXAMPLES else ""
        parts.append(f"other {reason}: {', '.join(names[:_EXAMPLES])}{more}")
    return "; ".join(parts)
