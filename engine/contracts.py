"""What a plugin says: one protocol a kind, with the small frozen dataclasses that cross the border.

Arrays are (row, column). Nothing here imports a plugin or a heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box, Scale
from nuclix.engine.model_card import ModelCard, ObjectClass, PatchShape

if TYPE_CHECKING:
    from nuclix.engine.segmentation.objects import Objects

__all__ = [
    "Annotation",
    "Level",
    "ModelCard",
    "ObjectClass",
    "PatchShape",
    "PostProcessor",
    "SlideHeader",
    "SlideInfo",
    "SlideReader",
    "Writer",
    "WriterSession",
]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid: its size in its own pixels and level-0 pixels per pixel."""

    height: int
    width: int
    downsample: float


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a reader knows of a slide before a pixel is read.

    Attributes
    ----------
    path : Path
        The file.
    vendor : str
        The scanner's maker as the reader names it, such as "aperio"; "image" for a plain image.
    levels : tuple of Level
        From the finest (level 0) to the coarsest.
    scale : Scale or None
        Level 0's micrometres per pixel, or None where the file does not say.
    bounds : Box or None
        The part of level 0 that QuPath shows (openslide.bounds-*), or None for all of it.
    scale_source : str or None
        Where `scale` comes from, such as "vendor metadata", "OME-XML", "ImageJ" or "TIFF resolution".
    objective_power : float or None
        The objective's nominal magnification; a hint for messages, never used as a scale.
    compression : str or None
        How level 0 is compressed, such as "jpeg".
    icc_profile : bytes or None
        The embedded colour profile.
    associated : tuple of str
        Names of further images in the file, such as a label or a macro image.
    """

    path: Path
    vendor: str
    levels: tuple[Level, ...]
    scale: Scale | None
    bounds: Box | None
    scale_source: str | None = None
    objective_power: float | None = None
    compression: str | None = None
    icc_profile: bytes | None = field(default=None, repr=False)
    associated: tuple[str, ...] = ()


@runtime_checkable
class SlideReader(Protocol):
    """Opens a slide file that it recognises and reads boxes of it. Entry-point group ``nuclix.readers``.

    A reader that is a subclass of this one can be used in a ``with`` block, which closes it.
    `priority` orders readers that recognise the same file: the highest is taken (built-ins have 0).
    """

    priority: ClassVar[int]
    info: SlideInfo

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether this reader can open a file, by its first bytes (never its name alone)."""
        ...

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open `path`; raise `SlideError` with a message for the user where that fails."""
        ...

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return the box at `level` as (height, width, 3) RGB, white outside the level; safe from several threads."""
        ...

    def close(self) -> None:
        """Let go of the file; further reads are errors."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@runtime_checkable
class PostProcessor(Protocol):
    """Turns a network's maps into labelled nuclei. Entry-point group ``nuclix.postprocessors``.

    The plugin is a frozen dataclass; its fields, all with defaults, are its parameters.

    The promise that makes results independent of blocks: `foreground` at a pixel looks at most `context` pixels
    around it, and `split` labels each clump (8-connected component of the foreground) from that clump and the
    maps within `context` pixels of it, whatever else is in the array and wherever the array was cut.
    """

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that it takes, in order; a class variable will do."""
        ...

    @property
    def context(self) -> int:
        """How far around a pixel the maps matter, in pixels at the model's scale."""
        ...

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the (height, width) mask of clumps of (channels, height, width) maps."""
        ...

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1; 0 is background; every label lies in one clump."""
        ...

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return per pixel a value in 0..1 whose mean over a nucleus is its detection probability.

        A post-processor that gives nuclei scores or classes itself is a `segmentation.detections.DetectsObjects`; one
        whose maps hold directions has an attribute `has_directions` that is true.
        """
        ...


@runtime_checkable
class CalibratesScores(Protocol):
    """A post-processor whose scores can be calibrated: mapped to the share of nuclei that are right."""

    def raw_scores(self, maps: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return (N,) one number per nucleus of labels 1..N, greater for surer ones, in any unit."""
        ...

    def calibrated(self, raw: Sequence[float], probability: Sequence[float]) -> Mapping[str, Any]:
        """Return the parameters with which scores follow the piecewise-linear function through these points."""
        ...


@dataclass(frozen=True, slots=True)
class Annotation:
    """A region of a slide that is written with the objects, such as a piece of tissue.

    Attributes
    ----------
    name : str
        Shown in QuPath's list of annotations.
    kind : ObjectClass
        Its class.
    polygons : tuple of tuple of (V, 2) float64
        Each polygon is a shell followed by its holes; rings are (x, y) in level-0 pixels from `SlideHeader.origin`, not
        closed.
    measurements : mapping of str to float
        Finite.
    """

    name: str
    kind: ObjectClass
    polygons: tuple[tuple[NDArray[np.float64], ...], ...]
    measurements: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlideHeader:
    """What a writer must know of a slide before its first object.

    Attributes
    ----------
    name : str
        The slide's file name.
    downsample : float
        Level-0 pixels along one pixel of the objects' coordinates.
    origin : tuple of float
        (row, column) in level-0 pixels of the corner that QuPath counts from.
    classes : tuple of ObjectClass
        What `Objects.classes` counts in.
    namespace : str
        Seed of the objects' identifiers: the slide's fingerprint and the model's hash.
    shape : tuple of int
        Height and width in level-0 pixels of what QuPath shows of the slide; (0, 0) if unknown.
    mpp : float or None
        Micrometres along a level-0 pixel; None if unknown.
    provenance : mapping
        JSON values that say what made the objects (nuclix version, model, settings); formats that have a place for it
        keep it.
    annotations : tuple of Annotation
        Regions to write with the objects; formats without annotations leave them out.
    """

    name: str
    downsample: float
    origin: tuple[float, float]
    classes: tuple[ObjectClass, ...]
    namespace: str
    shape: tuple[int, int] = (0, 0)
    mpp: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()


class WriterSession(Protocol):
    """One file being written."""

    def write(self, objects: Objects) -> None:
        """Append objects; calls come in canonical order."""
        ...

    def commit(self) -> None:
        """Finish: flush to disk, then give the file its final name."""
        ...

    def abort(self) -> None:
        """Remove what was written; no file has the final name."""
        ...


@runtime_checkable
class Writer(Protocol):
    """Writes a slide's objects to a file. Entry-point group ``nuclix.writers``."""

    suffix: ClassVar[str]

    def open(self, path: Path, header: SlideHeader) -> WriterSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        ...
