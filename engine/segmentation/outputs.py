"""Write the result files of a slide from its stored objects, in any number of formats at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from nuclix.engine import registry
from nuclix.engine.contracts import SlideHeader, Writer, WriterSession
from nuclix.engine.errors import UsageError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import AUTO_FORMAT, AUTO_FORMATS, LARGE_SLIDE
from nuclix.engine.segmentation.annotations import tissue_annotations
from nuclix.engine.segmentation.classes import ClassMapping
from nuclix.engine.segmentation.record import SlideRecord
from nuclix.engine.segmentation.regions import region_annotations
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.segmentation.written_classes import mapped_record

WritersByFormat = Mapping[str, Writer]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A result file, as the record keeps it.

    Attributes
    ----------
    format : str
        Name of its writer.
    path : str
        Relative to the output folder.
    sha256 : str
        Of its content.
    annotations : bool
        Whether tissue annotations were asked for.
    """

    format: str
    path: str
    sha256: str
    annotations: bool = False


def chosen_formats(formats: Sequence[str], nuclei: int) -> tuple[str, ...]:
    """Return the formats of a slide with so many nuclei, each once: ``auto`` is GeoJSON, zipped where it is large.

    >>> chosen_formats(("auto", "csv"), 1000), chosen_formats(("csv", "auto"), 1_000_000)
    (('geojson', 'csv'), ('csv', 'geojson-zip'))
    """
    small, large = AUTO_FORMATS
    auto = large if nuclei > LARGE_SLIDE else small
    return tuple(dict.fromkeys(auto if name == AUTO_FORMAT else name for name in formats))


def load_writers(formats: Sequence[str]) -> WritersByFormat:
    """Load the writers that a run may need.

    Parameters
    ----------
    formats : sequence of str
        Names of formats; ``auto`` stands for all that it may choose.

    Raises
    ------
    PluginError
        If there is no such writer, or a library that it needs is not installed.
    UsageError
        If no format is named, or two of them would write the same file.
    """
    if not formats:
        raise UsageError("no output format: give --format, such as --format geojson")
    names = dict.fromkeys(name for given in formats for name in (AUTO_FORMATS if given == AUTO_FORMAT else (given,)))
    writers: dict[str, Writer] = {}
    for name in names:
        make = cast(Callable[[], Writer], registry.load(registry.WRITERS, name))
        writers[name] = make()
    taken: dict[str, str] = {}
    for name, writer in writers.items():
        other = taken.setdefault(writer.suffix, name)
        if other != name:
            raise UsageError(f"the formats {other} and {name} would both write NAME{writer.suffix}: choose one")
    return writers


def write_outputs(
    store: ObjectStore,
    targets: Mapping[str, Path],
    writers: WritersByFormat,
    mapping: ClassMapping | None = None,
    *,
    annotations: bool,
    on_block: Callable[[], None],
) -> None:
    """Write a slide's objects in several formats, in one pass over the stored objects.

    Parameters
    ----------
    store : ObjectStore
        The objects.
    targets : mapping of str to Path
        File by format.
    writers : mapping of str to Writer
        By format.
    mapping : ClassMapping, optional
        What becomes of the model's classes; None leaves them as they are.
    annotations : bool
        Whether to write tissue annotations, where the format has them.
    on_block : callable
        Called after every block of objects; an exception ends the writing, and no file remains.

    Raises
    ------
    OutputError
        If a file can't be written.
    DataError
        If the stored objects are damaged.
    """
    header, regions = store.slide.header, store.slide.record.get("regions", [])
    if mapping is not None:
        regions = mapped_record(SlideRecord(**store.slide.record), header.classes, mapping).regions
        header = replace(header, classes=mapping.classes)
    if annotations and store.tissue is not None:
        firsts = None if store.slide.regions else store.first()  # nuclei of regions give no density of the tissue
        header = replace(header, annotations=tissue_annotations(header, store.tissue, firsts))
    if store.slide.regions:
        outlined = region_annotations(store.slide.regions, regions)
        header = replace(header, annotations=(*header.annotations, *outlined))
    with ExitStack() as stack:
        sessions = _open_all(targets, writers, header, stack)
        for objects in store.blocks():
            written = objects if mapping is None else mapping.apply(objects)
            for session in sessions:
                session.write(written)
            on_block()
        for session in sessions:
            session.commit()


def _open_all(
    targets: Mapping[str, Path], writers: WritersByFormat, header: SlideHeader, stack: ExitStack
) -> list[WriterSession]:
    sessions = []
    for name, path in targets.items():
        session = writers[name].open(path, header)
        stack.callback(session.abort)  # without effect after `commit`
        sessions.append(session)
    return sessions


def output_files(targets: Mapping[str, Path], out: Path, *, annotations: bool) -> list[dict[str, Any]]:
    """Return what the record says of written files.

    Parameters
    ----------
    targets : mapping of str to Path
        File by format.
    out : Path
        The output folder.
    annotations : bool
        Whether tissue annotations were asked for.
    """
    return [
        asdict(OutputFile(name, path.relative_to(out).as_posix(), checksum(path), annotations))
        for name, path in targets.items()
    ]


def merged_outputs(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the files of a record with those that were written now; a file of the same path is replaced."""
    files = {str(item["path"]): dict(item) for item in (*before, *now)}
    return list(files.values())
