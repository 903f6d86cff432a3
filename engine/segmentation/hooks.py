"""What the pipeline of a slide talks to: where objects go, where to compute, and who hears of progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.objects import Objects

if TYPE_CHECKING:
    from nuclix.engine.slide.quality import SlideQuality


class ObjectStore(Protocol):
    """Where finished objects go: a `Checkpoint` on disk, or a `MemoryStore`."""

    state: dict[str, NDArray[Any]]

    def append(self, objects: Objects) -> None:
        """Add objects, in any order."""
        ...

    def commit(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Make all objects so far durable, together with `state`."""
        ...


class PatchFilter(Protocol):
    """Where to compute: a `TissueMask`, or the `RegionPatches` of a region."""

    def within(self, box: Box, reach: int) -> Box | None:
        """Return the part of a patch's middle `box` that is needed, a box, or None; `reach` is the patch's margin."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slide has come; `rows` counts the committed rows of units, from which a resumed run goes on."""

    tiles: int
    tiles_total: int
    pixels: int
    nuclei: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RunHooks:
    """Callbacks of a slide in progress.

    Attributes
    ----------
    on_progress : callable
        Called with a `Progress` at the start and after every forward pass.
    should_stop : callable
        Asked after every committed row; True ends the run there, with `Interrupted`.
    on_foreground : callable or None
        Called with a box of the slide and its foreground, for each part that was computed, from one thread.
    """

    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    on_foreground: Callable[[Box, NDArray[np.bool_]], None] | None = None


@dataclass(slots=True)
class PipelineFigures:
    """What a slide's run counted: for its record."""

    tiles: int = 0
    tiles_total: int = 0
    pixels: int = 0
    nuclei: int = 0
    clumps_cut: int = 0
    rows: int = 0
    rows_resumed: int = 0
    pixels_resumed: int = 0
    first_tile_at: float | None = None
    doubts: list[str] = field(default_factory=list)
    quality: SlideQuality | None = None
    seconds: dict[str, float] = field(default_factory=dict)
