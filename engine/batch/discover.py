"""Find the slides of a run, name their results, and report what is passed over."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from nuclix.engine.batch.dicom import group_series
from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import UsageError
from nuclix.engine.slide.open import installed_readers, is_recognised
from nuclix.engine.slide.scale import UserScale

# In a folder, files with these suffixes are slides whatever they contain: one that is damaged is a failure.
SLIDE_SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".btf", ".ndpi", ".scn", ".svslide", ".qptiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp")
)
# Slide formats that only some readers open: a slide if a reader recognises the content, else passed over.
_VENDOR_SUFFIXES = frozenset(
    (".bif", ".mrxs", ".vms", ".vmu", ".dcm", ".czi", ".vsi", ".isyntax", ".i2syntax", ".kfb", ".sdpc", ".lif", ".zvi")
)
# Files that stand with slides and are never images.
_OTHER_SUFFIXES = frozenset(
    (
        *(".csv", ".db", ".doc", ".docx", ".geojson", ".gz", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".ppt"),
        *(".pptx", ".py", ".sh", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip", ".pt"),
        *(".ets", ".dat", ".opt", ".part", ".tmp", ".bak"),
    )
)
_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
# Names of the small images that scanners and archives store with a slide.
_COMPANION = re.compile(r"(^|[-_. ])(thumb|thumbnail|preview|label|macro|overview|barcode)s?$", re.IGNORECASE)
# Examples that a line names.
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class SlideJob:
    """A slide to process.

    Attributes
    ----------
    path : Path
        The file.
    name : PurePosixPath
        Name of its results in the output folder, without suffix; with sub-folders as in the input folder.
    scale : UserScale
        What the user says of its scale.
    problem : str
        Why there is no such file, where it should have been copied from an address; empty for all others.
    """

    path: Path
    name: PurePosixPath
    scale: UserScale = field(default_factory=UserScale)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The slides of a run, and what was passed over.

    Attributes
    ----------
    jobs : tuple of SlideJob
        The slides.
    passed_over : tuple of str
        One line for each reason.
    """

    jobs: tuple[SlideJob, ...]
    passed_over: tuple[str, ...]


@dataclass(slots=True)
class _Search:
    """A search in progress: what was passed over, by reason."""

    out: Path
    readers: tuple[type[SlideReader], ...]
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, path: Path) -> None:
        self.passed_over.setdefault(reason, []).append(path.name)

    def lines(self) -> tuple[str, ...]:
        return tuple(_line(reason, names) for reason, names in self.passed_over.items())


def _line(reason: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return f"passed over {len(names):,} ({reason}): {', '.join(names[:_EXAMPLES])}{more}"


def discover(
    inputs: Sequence[str],
    out: Path,
    known: Mapping[str, str] | None = None,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> Discovery:
    """Turn files, folders and glob patterns into slides, each once, in the order given (folders: by name).

    Parameters
    ----------
    inputs : sequence of str
        Files, folders (searched with their sub-folders, also linked ones) or patterns such as ``slides/*.svs``. A file
        that is named is a slide whatever its suffix.
    out : Path
        The output folder, which is not searched.
    known : mapping of str to str, optional
        Paths of slides that have results in the output folder, by the name of those: it does not change because
        another slide of the same stem is added.
    problems : mapping of str to str
        Inputs that are slides although there is no file, and why.

    Raises
    ------
    UsageError
        If an input matches nothing, or two slides would write the same result.
    """
    search = _Search(out.resolve(), installed_readers())
    found: dict[Path, PurePosixPath] = {}
    for text in inputs:
        for path, name in [(Path(text), PurePosixPath(Path(text).name))] if text in problems else _expand(text, search):
            found.setdefault(path.resolve(), name)
    missing = {Path(text).resolve(): problem for text, problem in problems.items()}
    jobs = _named(found, known or {})
    return Discovery(tuple(replace(job, problem=missing.get(job.path, "")) for job in jobs), search.lines())


def _named(found: Mapping[Path, PurePosixPath], known: Mapping[str, str]) -> tuple[SlideJob, ...]:
    """Name the slides: two of one stem keep their suffixes, a.svs and a.tif become a.svs.geojson and a.tif.geojson."""
    stems = Counter(_stem(name) for name in found.values())

    def chosen(path: Path, name: PurePosixPath) -> PurePosixPath:
        stem = _stem(name)
        return stem if stems[stem] == 1 or known.get(str(stem)) == str(path) else name

    jobs = tuple(SlideJob(path, chosen(path, name)) for path, name in found.items())
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            paths = ", ".join(str(job.path) for job in jobs if job.name == name)
            raise UsageError(f"{paths} would all write {name}.*: use a different output folder for each")
    return jobs


def _stem(name: PurePosixPath) -> PurePosixPath:
    """Return a name without its ending, which of OME-TIFF is ``.ome.tif``: QuPath shortens names in the same way."""
    short = name.with_suffix("")
    double = short.suffix.lower() == ".ome" and name.suffix.lower() in (".tif", ".tiff", ".zarr")
    return short.with_suffix("") if double else short


def _expand(text: str, search: _Search) -> list[tuple[Path, PurePosixPath]]:
    if not text:
        raise UsageError("an input is empty (''); is a variable of the shell not set?")
    path = Path(text).expanduser()
    if path.is_dir() and not is_recognised(path, search.readers):
        return _search_folder(path, search)
    if os.path.lexists(path):
        return [(path, PurePosixPath(path.name))]
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 (the pattern may be absolute)
    files = [match for match in matches if match.is_file()]
    if not files:
        raise UsageError(f"{text}: no such file or folder, and as a pattern it matches nothing")
    return [(file, PurePosixPath(file.name)) for file in files]


def _search_folder(folder: Path, search: _Search) -> list[tuple[Path, PurePosixPath]]:
    before = len(search.passed_over)
    slides = group_series([file for file in _walk(folder, search) if _is_slide(file, search)], search.skip)
    if not slides:
        reasons = "; ".join(search.lines()[before:]) or "it is empty"
        raise UsageError(f"{folder}: the folder contains no slide ({reasons})")
    return [(file, PurePosixPath(file.relative_to(folder).as_posix())) for file in slides]


def _walk(folder: Path, search: _Search) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders, also linked ones, in order of their names."""
    visited: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        search.skip(f"folder can't be read: {error.strerror}", Path(str(error.filename)))

    found: list[Path] = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        here = Path(root)
        facts = here.stat()
        if (facts.st_dev, facts.st_ino) in visited:
            search.skip("linked folder that was searched already", here)
            folders.clear()
            continue
        visited.add((facts.st_dev, facts.st_ino))
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not _is_output(here / name, search)
        )
        for name in list(folders):
            if is_recognised(here / name, search.readers):
                folders.remove(name)
                found.append(here / name)
        found += [here / name for name in files]
    yield from sorted(found)


def _is_output(path: Path, search: _Search) -> bool:
    found = path.resolve()
    return found == search.out or search.out in found.parents


def _is_slide(file: Path, search: _Search) -> bool:
    """Return whether a file of a folder is a slide; record why not."""
    suffix = file.suffix.lower()
    if file.name.startswith("."):
        return False
    if file.is_symlink() and search.out in file.resolve().parents:
        return False
    if not file.exists():
        search.skip("link to nothing", file)
    elif file.is_dir():
        return True
    elif not file.is_file():
        search.skip("not a regular file", file)
    elif suffix in _IMAGE_SUFFIXES and _COMPANION.search(file.stem):
        search.skip("thumbnail, label or preview by its name", file)
    elif suffix in SLIDE_SUFFIXES:
        return True
    elif suffix in _OTHER_SUFFIXES:
        search.skip("not an image by its suffix", file)
    elif is_recognised(file, search.readers):
        return True
    elif suffix in _VENDOR_SUFFIXES:
        search.skip(f"{suffix}: no installed reader opens it", file)
    else:
        search.skip("not recognised by any installed reader", file)
    return False
