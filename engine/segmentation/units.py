"""What travels through the pipeline: patches, batches of them, and units of the grid that fill up with maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.objects import Objects


@dataclass(frozen=True, slots=True)
class Part:
    """What is needed of a patch: the box whose maps are used, and `seen`, the box whose maps the network gives."""

    box: Box
    seen: Box


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch's pixels, and those of its part that is used in one plane where they are measured."""

    pixels: NDArray[np.uint8]
    packed: NDArray[np.float32] | None


@dataclass(slots=True)
class Unit:
    """A unit in progress: its maps fill up patch by patch; None is background.

    Where pixels are measured they are one more plane behind the maps. `whole` says that every pixel is computed.
    """

    row: int
    col: int
    box: Box
    missing: int
    whole: bool = False
    maps: NDArray[np.float32] | None = None
    tiles: int = 0
    pixels: int = 0

    def place(self, part: Part, tile: NDArray[np.float32], packed: NDArray[np.float32] | None) -> int:
        """Put maps, which are of `part.seen`, and packed pixels of `part.box` into place; return how many pixels."""
        if self.maps is None:
            make = np.empty if self.whole else np.zeros
            self.maps = make((len(tile) + (packed is not None), *self.box.shape), np.float32)
        shared = part.box.intersect(self.box)
        self.maps[(slice(len(tile)), *shared.slices(self.box))] = tile[(slice(None), *shared.slices(part.seen))]
        if packed is not None:
            self.maps[(len(tile), *shared.slices(self.box))] = packed[shared.slices(part.box)]
        self.missing -= 1
        self.tiles += 1
        self.pixels += shared.area
        return shared.area


Batch = list[tuple[Unit, Part, Future[Patch]]]


@dataclass(frozen=True, slots=True)
class Computing:
    """A batch on the device: its places, its pixels, and what waits for its maps."""

    places: Batch
    patches: list[Patch]
    maps: Callable[[], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Stitched:
    """A unit's objects on their way, and after a row's last unit the state from which a run can go on."""

    unit: Unit
    objects: list[Future[Objects]]
    state: dict[str, NDArray[Any]] | None
