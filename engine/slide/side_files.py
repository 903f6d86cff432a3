"""Files that belong to a slide: its regions, its tissue mask; found by the slide's name in a folder."""

from __future__ import annotations

from pathlib import Path

from nuclix.engine.errors import SlideError, UsageError
from nuclix.engine.files import checksum

ANNOTATION_SUFFIXES = (".geojson", ".geojson.gz", ".json")
MASK_SUFFIXES = (".png", ".tif", ".tiff", *ANNOTATION_SUFFIXES)
MISSING = "missing"


def side_file(given: str | None, slide: Path, suffixes: tuple[str, ...]) -> Path | None:
    """Return the file of a slide: the given one, or that of its name in the given folder.

    Parameters
    ----------
    given : str or None
        A file, or a folder with a file per slide: ``a.geojson`` or ``a.svs.geojson`` for ``a.svs``.
    slide : Path
        The slide.
    suffixes : tuple of str
        Of the files, the most wanted first.

    Returns
    -------
    Path or None
        None where there is none.
    """
    if given is None:
        return None
    place = Path(given)
    if not place.is_dir():
        return place if place.is_file() else None
    stem = Path(slide.stem).stem if slide.stem.lower().endswith(".ome") else slide.stem
    names = (f"{name}{suffix}" for name in (slide.name, stem) for suffix in suffixes)
    return next((place / name for name in names if (place / name).is_file()), None)


def required_side_file(given: str, slide: Path, suffixes: tuple[str, ...], option: str) -> Path:
    """Return the file of a slide as `side_file` does.

    Raises
    ------
    SlideError
        If there is none; the message names the slide, the folder and the names that were looked for.
    """
    found = side_file(given, slide, suffixes)
    if found is None:
        wanted = f"{slide.stem}{suffixes[0]} or {slide.name}{suffixes[0]}"
        raise SlideError(f"{slide}: no file for it in {given} ({option}); add {wanted}")
    return found


def side_file_hash(given: str | None, slide: Path, suffixes: tuple[str, ...]) -> str | None:
    """Return the SHA-256 of a slide's file, `MISSING` where it can't be read, None where none is asked for."""
    if given is None:
        return None
    found = side_file(given, slide, suffixes)
    try:
        return MISSING if found is None else checksum(found)
    except OSError:
        return MISSING


def check_side_files(given: str | None, slides: int, option: str) -> None:
    """Check what an option names before a run starts.

    Raises
    ------
    UsageError
        If it does not exist, or is one file although there are several slides.
    """
    if given is None:
        return
    place = Path(given)
    if not place.exists():
        raise UsageError(f"{option} {given}: no such file or folder")
    if slides > 1 and not place.is_dir():
        raise UsageError(
            f"{option} {given}: is one file, but there are {slides} slides; give a folder with a file of each slide's "
            "name"
        )
