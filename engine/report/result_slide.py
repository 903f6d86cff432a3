"""Open the slide of a finished result again, and make sure that it is the same one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nuclix.engine.contracts import SlideHeader, SlideReader
from nuclix.engine.errors import NuclixError, SlideError
from nuclix.engine.slide.open import open_slide
from nuclix.engine.slide.view import slide_bounds


def find_slide(path: str, out: Path, folder: Path | None = None) -> Path:
    """Return where a slide lies now.

    Parameters
    ----------
    path : str
        As the run was given it.
    out : Path
        The output folder, near which slides may have been moved.
    folder : Path or None
        Searched first, for a file of the slide's name.

    Returns
    -------
    Path
        The first of these that exists: in `folder`, at `path`, at `path` seen from `out` and from the folder of `out`;
        otherwise `path`.
    """
    wanted = Path(path)
    places = [folder / wanted.name] if folder is not None else []
    places += [wanted] if wanted.is_absolute() else [wanted, out / wanted, out.parent / wanted]
    return next((place for place in places if place.exists()), wanted)


def open_result_slide(path: Path, header: SlideHeader, record: Mapping[str, Any]) -> SlideReader:
    """Open the slide of a result with the reader that the run was told to use.

    Parameters
    ----------
    path : Path
        The slide.
    header : SlideHeader
        Stored with the objects.
    record : mapping
        The slide's record.

    Returns
    -------
    SlideReader

    Raises
    ------
    SlideError
        If it is missing, damaged, or another slide than the result's.
    """
    name = dict(record.get("settings", {})).get("reader")
    try:
        reader = open_slide(path, name)
    except SlideError:
        raise
    except NuclixError as error:  # the reader is no longer installed
        raise SlideError(f"{path}: {error}") from error
    shown = slide_bounds(reader.info)
    if header.shape != (0, 0) and (tuple(header.shape) != shown.shape or header.origin != (shown.row, shown.col)):
        reader.close()
        height, width = header.shape
        raise SlideError(
            f"{path}: shows {shown.width} x {shown.height} px, but the result is of a slide of {width} x {height} px; "
            "put back the slide that was segmented, or run it again"
        )
    return reader
