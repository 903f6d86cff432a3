"""Write finished slides in further formats, from their stored objects and without the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from nuclix.engine.batch.copies import keep_copies
from nuclix.engine.batch.known_results import recorded_outputs
from nuclix.engine.batch.layout import LEDGER_NAME, objects_path
from nuclix.engine.batch.ledger import DONE, Ledger, LedgerRow
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.errors import DataError, NuclixError, OutputError, UsageError
from nuclix.engine.files import checksum
from nuclix.engine.segmentation.outputs import (
    WritersByFormat,
    chosen_formats,
    load_writers,
    merged_outputs,
    output_files,
    write_outputs,
)
from nuclix.engine.segmentation.record import SlideRecord, write_record
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.segmentation.written_classes import mapping_of


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to write, and where.

    Attributes
    ----------
    out : Path
        The output folder of a run.
    formats : tuple of str
        Names of formats.
    annotations : bool
        Whether to write tissue annotations, where the format has them.
    to : Path or None
        Another folder for the files; None for the output folder, whose records then name them.
    """

    out: Path
    formats: tuple[str, ...]
    annotations: bool = False
    to: Path | None = None


@dataclass(slots=True)
class ExportSummary:
    """The outcome of an export.

    Attributes
    ----------
    written : dict of str to list of Path
        Files by slide.
    failed : dict of str to str
        Reason by slide.
    """

    written: dict[str, list[Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def export_folder(request: ExportRequest, on_slide: Callable[[str], None] = lambda name: None) -> ExportSummary:
    """Write all finished slides of an output folder.

    Parameters
    ----------
    request : ExportRequest
        What to write, and where.
    on_slide : callable
        Called with the name of each slide when its files are complete.

    Raises
    ------
    UsageError
        If there is no run, another run uses the folder, or two formats would write the same file.
    PluginError
        If a writer does not exist or lacks a library.
    OutputError
        If the folder can't be written.
    """
    if not (request.out / LEDGER_NAME).is_file():
        raise UsageError(f"{request.out}: no run has written here (there is no {LEDGER_NAME})")
    writers = load_writers(request.formats)
    summary = ExportSummary()
    with ExitStack() as stack:
        inside = request.to is None
        if inside:
            stack.enter_context(FolderLock(request.out))
        ledger = stack.enter_context(closing(Ledger(request.out, read_only=not inside)))
        for row in ledger.rows():
            if row.state != DONE:
                continue
            try:
                summary.written[row.name] = _export_slide(row, request, writers, ledger)
            except OutputError:
                raise
            except NuclixError as error:
                summary.failed[row.name] = str(error)
                continue
            on_slide(row.name)
    return summary


def _export_slide(row: LedgerRow, request: ExportRequest, writers: WritersByFormat, ledger: Ledger) -> list[Path]:
    path = objects_path(request.out, row.name)
    if not path.exists():
        raise DataError(f"{row.path}: its objects are not stored (made by nuclix 0.1, or deleted); run the slide again")
    root = request.to or request.out
    stem = root / PurePosixPath(row.name)
    with ObjectStore(path) as store:
        targets = {
            name: stem.with_name(stem.name + writers[name].suffix)
            for name in chosen_formats(request.formats, len(store))
        }
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            if request.to is None:
                keep_copies(_foreign(targets.values(), row, request.out))
        except OSError as error:
            raise OutputError(f"{stem.parent}: can't be written: {error.strerror}") from error
        write_outputs(
            store, targets, writers, mapping_of(row.record), annotations=request.annotations, on_block=lambda: None
        )
    if request.to is None:
        _record(row, output_files(targets, request.out, annotations=request.annotations), request.out, ledger)
    return list(targets.values())


def _foreign(targets: Iterable[Path], row: LedgerRow, out: Path) -> list[Path]:
    """Return what lies in the place of a file and was not written by nuclix, or was changed since."""
    known: Mapping[Path, str] = {out / str(item["path"]): str(item["sha256"]) for item in recorded_outputs(row)}
    return [path for path in targets if os.path.lexists(path) and not _is_known(path, known.get(path))]


def _is_known(path: Path, digest: str | None) -> bool:
    return path.is_file() and not path.is_symlink() and checksum(path) == digest


def _record(row: LedgerRow, files: list[dict[str, Any]], out: Path, ledger: Ledger) -> None:
    """Name the new files in the record and in the ledger, so that a run knows that they are there."""
    known = {name: row.record[name] for name in SlideRecord.__dataclass_fields__ if name in row.record}
    record = SlideRecord(**known)
    record.outputs = merged_outputs(recorded_outputs(row), files)
    stem = out / PurePosixPath(row.name)
    path = stem.with_name(f"{stem.name}.json")
    try:
        write_record(path, record)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error
    ledger.set_record(row.name, {**row.record, "outputs": record.outputs})
