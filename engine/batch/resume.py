"""Check on restart which slides are finished.

A result is judged by what it was made from and by its bytes, not by how the last run ended: it is finished if the
slide, the model and the options that it depends on are those of this run, and if the file is the one that was
written. Nothing is deleted here: an older result stays until a new one is renamed over it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.known_results import KnownResult, from_ledger, from_record, is_record
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, LedgerRow
from nuclix.engine.batch.outputs import OutputCheck, check_outputs
from nuclix.engine.errors import Interrupted, SlideError, UsageError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.outputs import load_writers
from nuclix.engine.segmentation.record import SlideRecord, read_record
from nuclix.engine.segmentation.regions import side_file_hashes
from nuclix.engine.segmentation.result_key import CLASS_MAP, differences, objects_key, read_key, result_key
from nuclix.engine.segmentation.store import open_store
from nuclix.engine.slide.identity import agree, content_hash, file_state, is_quick, quick_digest, slide_state
from nuclix.engine.slide.open import fingerprint, open_slide

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
        self._writers = load_writers(config.format)
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

    def _check(self, job: SlideJob) -> SlideCheck:  # noqa: PLR0911 (one answer for each case)
        paths = slide_paths(self._out, job)
        if paths.checkpoint.is_symlink():
            return SlideCheck(job, error=f"{paths.checkpoint}: is a link, which nuclix never makes; remove it")
        if (unchanged := self._untouched(job)) is not None:
            return unchanged
        record = None if paths.record.is_symlink() else read_record(paths.record)
        known, files = self._known_result(job, record)
        if job.problem:
            return self._unreadable(job, known, job.problem)
        try:
            state = slide_state(job.path)
        except SlideError as error:
            return self._unreadable(job, known, str(error))
        found = SlideCheck(job, state.size, interrupted=paths.checkpoint.exists())
        if known is not None and known.slide_state == state.text:
            mark = str(known.key.get("slide", ""))
        else:
            try:
                mark = fingerprint(job.path)
            except SlideError as error:
                return self._unreadable(job, known, str(error))
        found = replace(found, fingerprint=mark)
        if known is None or files is None:
            return self._with_foreign_files(found)
        if mark == known.key.get("slide") and known.slide_state != state.text and not self._same_content(job, known):
            mark = f"{mark} with other content"
        changed = self._changes(job, known, mark)
        only_classes = changed == (CLASS_MAP,) and self._config.recompute is not False
        if only_classes and self._are_stored(job, known, mark, state.text):
            notice = f"{job.path.name}: writing the stored objects again with another class map"
            return replace(found, notice=notice, set_aside=files.changed)
        if changed and files.known:
            return replace(found, changed=changed, set_aside=files.changed)
        if changed or files.missing or files.changed:
            stored = paths.objects.is_file() and not changed
            return replace(found, notice=_notice(job, files, stored=stored), set_aside=files.changed)
        return self._finished(found, known, state.text)

    def _untouched(self, job: SlideJob) -> SlideCheck | None:
        """Return the check of a slide that is finished by the ledger and the folders' listings alone, or None.

        With a thousand finished slides most of a start is spent here: no record is read.
        """
        row = self.rows.get(str(job.name))
        known = from_ledger(row, None) if row is not None and row.state == DONE else None
        if known is None or known.slide_state is None or not known.output_states:
            return None
        try:
            state = slide_state(job.path)
            states = {path: file_state(self._out / path) for path in known.output_states}
        except (SlideError, OSError):
            return None
        mark = str(known.key.get("slide", ""))
        if state.text != known.slide_state or states != known.output_states or self._changes(job, known, mark):
            return None
        files = self._files(job, known)
        if files.missing or files.changed or files.deleted:
            return None
        return self._finished(SlideCheck(job, state.size, mark), known, state.text)

    def _finished(self, slide: SlideCheck, known: KnownResult, state: str) -> SlideCheck:
        """Return the check of a finished slide, with what should be written to the ledger."""
        paths = [str(item["path"]) for item in known.outputs]
        present = {path: file_state(self._out / path) for path in paths if (self._out / path).is_file()}
        states = {"slide_state": state, "output_state": json.dumps(present)}
        row = self.rows.get(str(slide.job.name))
        current = row is not None and row.state == DONE and not known.row
        if current and row is not None and states == {"slide_state": row.slide_state, "output_state": row.output_state}:
            states = {}
        return replace(slide, done=True, states=states, result=known.row or {})

    def _unreadable(self, job: SlideJob, known: KnownResult | None, error: str) -> SlideCheck:
        """Return the check of a slide that can't be read now: a finished result of these options stays finished."""
        if known is None or self._changes(job, known, str(known.key.get("slide"))):
            return SlideCheck(job, error=error)
        notice = f"{error}; its finished result is kept"
        return self._finished(SlideCheck(job, notice=notice), known, known.slide_state or "")

    def _changes(self, job: SlideJob, known: KnownResult, mark: str) -> tuple[str, ...]:
        """Return what differs between a known result and the one that this run would make."""
        return differences(known.key, read_key(self._wanted_key(job, known, mark)))

    def _wanted_key(self, job: SlideJob, known: KnownResult, mark: str) -> str:
        """Return the key of the result that this run would make."""
        used = known.key.get("mpp")
        asked = job.scale.mpp
        same = asked is None or (used is None and not job.scale.overrules) or asked in (used, known.mpp)
        files = side_file_hashes(self._config, job.path)
        return result_key(mark, self._model, self._config, used if same else asked, files)

    def _are_stored(self, job: SlideJob, known: KnownResult, mark: str, state: str) -> bool:
        """Return whether the objects that this run would write with its class map are stored."""
        key = objects_key(self._wanted_key(job, known, mark))
        store = open_store(slide_paths(self._out, job).objects, key)
        if store is None:
            return False
        with store:
            return bool(store.slide.record.get("result", {}).get("slide_state") == state)

    def _same_content(self, job: SlideJob, known: KnownResult) -> bool:
        """Return whether the slide's content is as before, as far as was recorded; True where it was not."""
        if known.content is None:
            return True
        self._announce_doubt()
        if not is_quick(known.content):
            return content_hash(job.path, self._hooks.should_stop) == known.content
        try:
            with closing(open_slide(job.path, self._config.reader)) as reader:
                return agree(quick_digest(job.path, reader, self._hooks.should_stop), known.content)
        except SlideError:
            return False  # computing it again says why

    def _announce_doubt(self) -> None:
        with self._doubt_lock:
            first, self._doubted = not self._doubted, True
        if first:
            self._hooks.on_doubt()

    def _known_result(self, job: SlideJob, record: SlideRecord | None) -> tuple[KnownResult | None, OutputCheck | None]:
        """Return the finished result that the ledger describes, or else the record, and the state of its files."""
        row = self.rows.get(str(job.name))
        known = from_ledger(row, record) if row is not None else None
        files = self._files(job, known) if known is not None else None
        written = from_record(record)
        if written is not None and (files is None or not files.known or (known and known.key != written.key)):
            found = self._files(job, written)
            if found.known:
                return written, found
        return known, files

    def _files(self, job: SlideJob, known: KnownResult) -> OutputCheck:
        def is_intact(path: Path, digest: str) -> bool:
            state = known.output_states.get(path.relative_to(self._out).as_posix())
            if state is not None and state == file_state(path):
                return True
            self._announce_doubt()
            return checksum(path) == digest

        return check_outputs(known, slide_paths(self._out, job).stem, self._config, self._writers, is_intact)

    def _with_foreign_files(self, slide: SlideCheck) -> SlideCheck:
        """Add the files in the place of the slide's own that nuclix did not write, as far as is known."""
        paths = slide_paths(self._out, slide.job)
        places = (paths.result(writer.suffix) for writer in self._writers.values())
        found = [path for path in places if os.path.lexists(path)]
        # With a checkpoint the results are most likely those of a run which was killed as it ended.
        quiet = paths.checkpoint.exists()
        if os.path.lexists(paths.record) and not is_record(paths.record):
            found.append(paths.record)
            quiet = False
        if found and not quiet:
            names = " and ".join(map(str, found))
            notice = f"{slide.job.path.name}: {names}: not written by nuclix for this slide; a copy is kept"
            slide = replace(slide, notice=notice)
        return replace(slide, set_aside=tuple(found))


def _notice(job: SlideJob, files: OutputCheck, *, stored: bool) -> str:
    """Return what is wrong with the files of a finished slide, and what follows."""
    name, again = job.path.name, "writing it again" if stored else "computing it again"
    if files.changed:
        return f"{name}: the result {', '.join(map(str, files.changed))} was changed; a copy is kept, {again}"
    if files.deleted:
        return f"{name}: the result {files.deleted[0]} is missing; {again}"
    return f"{name}: adding {', '.join(files.missing)} to the finished result"


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
