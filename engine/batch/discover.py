"""Which slides a run is about, and what their results are called."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nuclix.engine.errors import UsageError
from nuclix.engine.slide.scale import UserScale

# In a folder, files of these endings are slides; a file that is named on the command line is tried whatever it is.
SLIDE_SUFFIXES = frozenset(
    (
        *(".svs", ".tif", ".tiff", ".btf", ".ndpi", ".scn", ".bif", ".mrxs", ".svslide", ".vms", ".vmu", ".dcm"),
        *(".png", ".jpg", ".jpeg", ".webp", ".bmp"),
    )
)


@dataclass(frozen=True, slots=True)
class SlideJob:
    """A slide to work on.

    Attributes
    ----------
    path : Path
        The file.
    name : PurePosixPath
        What its results are called in the output folder, without ending; with sub-folders as in the input folder.
    scale : UserScale
        What the user says of its scale.
    """

    path: Path
    name: PurePosixPath
    scale: UserScale = field(default_factory=UserScale)


def find_slides(inputs: Sequence[str], out: Path) -> tuple[SlideJob, ...]:
    """Turn files, folders and glob patterns into slides, each once, in the order given (folders: by name).

    Parameters
    ----------
    inputs : sequence of str
        Files, folders (searched with their sub-folders) or patterns such as ``slides/*.svs``.
    out : Path
        The output folder; what lies in it is no input.

    Raises
    ------
    UsageError
        If an input matches nothing, or two slides would write the same result.
    """
    found: dict[Path, PurePosixPath] = {}
    for text in inputs:
        for path, name in _expand(text, out.resolve()):
            found.setdefault(path.resolve(), name)
    stems = Counter(name.with_suffix("") for name in found.values())
    # Two slides of one stem keep their endings apart: a.svs and a.tif become a.svs.geojson and a.tif.geojson.
    jobs = tuple(
        SlideJob(path, name.with_suffix("") if stems[name.with_suffix("")] == 1 else name)
        for path, name in found.items()
    )
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            paths = ", ".join(str(job.path) for job in jobs if job.name == name)
            raise UsageError(f"{paths} would all write {name}.*: run them into different output folders")
    return jobs


def _expand(text: str, out: Path) -> list[tuple[Path, PurePosixPath]]:
    path = Path(text)
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in SLIDE_SUFFIXES
            and file.is_file()
            and not _hidden(file, path)
            and not _inside(file, out)
        ]
        if not files:
            raise UsageError(
                f"{text}: the folder holds no slide (endings looked for: {' '.join(sorted(SLIDE_SUFFIXES))})"
            )
        return [(file, PurePosixPath(file.relative_to(path).as_posix())) for file in files]
    if path.exists():
        return [(path, PurePosixPath(path.name))]
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 (the pattern may be absolute)
    files = [match for match in matches if match.is_file()]
    if not files:
        raise UsageError(f"{text}: no such file or folder, and as a pattern it matches nothing")
    return [(file, PurePosixPath(file.name)) for file in files]


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _inside(file: Path, out: Path) -> bool:
    return out in file.resolve().parents
