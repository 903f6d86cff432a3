"""The files of one slide, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nuclix.engine.segmentation.record import SlideRecord


@dataclass(frozen=True, slots=True)
class SlidePaths:
    """The files of one slide.

    Attributes
    ----------
    slide : Path
        The slide itself.
    out : Path
        The output folder, which must exist.
    stem : Path
        Path of the results without their suffixes.
    record : Path
        The record.
    checkpoint : Path
        Folder of the committed objects of a slide in progress.
    thumbnail, summary : Path
        For the report.
    objects : Path
        The finished objects, from which further formats are written.
    """

    slide: Path
    out: Path
    stem: Path
    record: Path
    checkpoint: Path
    thumbnail: Path
    summary: Path
    objects: Path

    def result(self, suffix: str) -> Path:
        """Return the path of the result with a writer's suffix."""
        return self.stem.with_name(self.stem.name + suffix)


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """A finished slide, as the ledger keeps it.

    Attributes
    ----------
    output, checksum : str
        The path of the first result file in the output folder, and its SHA-256; the record has all of them.
    record : SlideRecord
        The record in the same folder.
    """

    output: str
    checksum: str
    record: SlideRecord
