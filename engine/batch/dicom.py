"""Group the files of a DICOM series, which together are one slide."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

SUFFIX = ".dcm"
# Bytes of a file in which its header is searched: the series is identified long before the pixels.
_HEAD = 64 << 10
# Element (0020,000E), Series Instance UID, explicit little-endian: tag, type UI, length, value (PS3.5, 7.1).
_SERIES = re.compile(rb"\x20\x00\x0e\x00UI(..)([0-9.]+)", re.DOTALL)


def series_of(path: Path) -> str:
    """Return the identifier of the series that a DICOM file belongs to; empty where it is not found."""
    try:
        with path.open("rb") as file:
            found = _SERIES.search(file.read(_HEAD))
    except OSError:
        return ""
    return found.group(2).decode() if found else ""


def group_series(files: Sequence[Path], skip: Callable[[str, Path], None]) -> list[Path]:
    """Keep one file of each DICOM series: its largest, which holds the full resolution.

    Parameters
    ----------
    files : sequence of Path
        Slides; files with other suffixes are kept.
    skip : callable
        Is called with a reason and each file that is left out.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        if file.suffix.lower() == SUFFIX:
            groups.setdefault((file.parent, series_of(file) or file.name), []).append(file)
    largest = {max(group, key=lambda file: file.stat().st_size) for group in groups.values()}
    kept = []
    for file in files:
        if file.suffix.lower() != SUFFIX or file in largest:
            kept.append(file)
        else:
            skip("further files of a DICOM series", file)
    return kept
