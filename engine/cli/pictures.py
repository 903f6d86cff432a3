"""What the commands that draw a picture share: the size of the picture, and the check of where it goes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from nuclix.engine.errors import UsageError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
MAX_EDGE = 16_384  # pixels: a square picture takes 0.8 GB of memory; WebP takes no more than 16,383


def picture_edge(text: str) -> int:
    """Return the longer edge of a picture in pixels.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not a whole number from 1 to `MAX_EDGE`.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_EDGE):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_EDGE}, not {text!r}")
    return int(text)


def check_outputs(outputs: Iterable[tuple[str, Path, tuple[str, ...]]], inputs: Iterable[Path]) -> None:
    """Refuse output files that can't be meant, before any work is done.

    Parameters
    ----------
    outputs : iterable of (str, Path, tuple of str)
        The option, its file, and the suffixes that it may have.
    inputs : iterable of Path
        Files that are read, which no output may replace.

    Raises
    ------
    UsageError
        If an output has another suffix, its folder does not exist, or it is one of the inputs.
    """
    read = {path.resolve() for path in inputs}
    for option, path, suffixes in outputs:
        if not path.name.lower().endswith(suffixes):
            raise UsageError(f"{option} {path}: the name must end in {', '.join(suffixes)}")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: the folder {path.parent} does not exist")
        if path.resolve() in read:
            raise UsageError(f"{option} {path}: is an input and would be overwritten; choose another name")
