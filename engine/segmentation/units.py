"""What travels through the pipeline: patches, batches of them, and units of the grid that fill up with maps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.objects import Objects


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch's pixels, and those of its valid region in one plane where they are measured."""

    pixels: NDArray[np.uint8]
    packed: NDArray[np.float32] | None


@dataclass(slots=True)
class Unit:
    """A unit in progress: its maps fill up patch by patch; None is background.

    Where pixels are measured they are one more plane behind the maps. `whole` says that every patch is computed.
    """

    row: int
    col: int
    box: Box
    missing: int
    whole: bool = False
    maps: NDArray[np.float32] | None = None
    tiles: int = 0
    pixels: int = 0

    def place(self, core: Box, tile: NDArray[np.float32], packed: NDArray[np.float32] | None) -> int:
        """Put the maps and the packed pixels of a patch's middle into place; return the number of pixels."""
        if self.maps is None:
            make = np.empty if self.whole else np.zeros
            self.maps = make((len(tile) + (packed is not None), *self.box.shape), np.float32)
        shared = core.intersect(self.box)
        self.maps[(slice(len(tile)), *shared.slices(self.box))] = tile[(slice(None), *shared.slices(core))]
        if packed is not None:
            self.maps[(len(tile), *shared.slices(self.box))] = packed[shared.slices(core)]
        self.missing -= 1
        self.tiles += 1
        self.pixels += shared.area
        return shared.area


Batch = list[tuple[Unit, Box, Future[Patch]]]


@dataclass(frozen=True, slots=True)
class Computing:
    """A batch on the device: its places, its pixels, and what waits for its maps."""

    places: Batch
    patches: list[Patch]
    maps: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Stitched:
    """A unit's objects on their way, and after a row's last unit the state from which a run can go on."""

    unit: Unit
    objects: list[Future[Objects]]
    state: dict[str, NDArray[Any]] | None
