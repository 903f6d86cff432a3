"""Several small clumps in one array, so that one call of a kernel serves them all.

Waiting clumps are many and small; a call for each would cost more than its work. Side by side, with their context
between them, they can't see each other, so each is labelled as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.clumps import Clump
from nuclix.engine.segmentation.objects import Objects

# One canvas holds about this many pixels: large enough to forget the call, small enough for the cache.
CANVAS_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class ClumpBatch:
    """Clumps side by side.

    Attributes
    ----------
    mask : (h, w) bool
        Their foreground, a column of background or more between two of them.
    maps : (channels, h + 2 context, w + 2 context) float32
        Their maps.
    starts : (n,) int64
        The first canvas column of each clump, rising.
    boxes : tuple of Box
        Where each lies in the slide.
    """

    mask: NDArray[np.bool_]
    maps: NDArray[np.float32]
    starts: NDArray[np.int64]
    boxes: tuple[Box, ...]

    def placed(self, objects: Objects) -> Objects:
        """Move objects found on the canvas to where they lie in the slide.

        Parameters
        ----------
        objects : Objects
            In canvas coordinates.

        Returns
        -------
        Objects
            The same objects, `first` and `corners` in slide coordinates.
        """
        which = np.searchsorted(self.starts, objects.first[:, 1], side="right") - 1
        origins = np.array([(box.row, box.col) for box in self.boxes], np.int64)
        origins[:, 1] -= self.starts
        moves = origins[which]
        corners = np.diff(objects.offsets[objects.rings])
        return replace(
            objects,
            first=objects.first + moves,
            corners=(objects.corners + np.repeat(moves, corners, axis=0)).astype(np.float32),
        )


def pack(clumps: Sequence[Clump], context: int) -> Iterator[ClumpBatch]:
    """Lay clumps side by side, similar heights together.

    Parameters
    ----------
    clumps : sequence of Clump
        One clump each.
    context : int
        Pixels of maps around each clump's box.

    Yields
    ------
    ClumpBatch
        Every clump is on exactly one.
    """
    waiting: list[Clump] = []
    width = 0
    for clump in sorted(clumps, key=lambda c: (-c.box.height, c.box.row, c.box.col)):
        step = clump.box.width + 2 * context + 1
        if waiting and (width + step) * (waiting[0].box.height + 2 * context) > CANVAS_PIXELS:
            yield _lay(waiting, context)
            waiting, width = [], 0
        waiting.append(clump)
        width += step
    if waiting:
        yield _lay(waiting, context)


def _lay(clumps: Sequence[Clump], context: int) -> ClumpBatch:
    steps = [clump.box.width + 2 * context + 1 for clump in clumps]
    starts = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int64)
    height, width = max(clump.box.height for clump in clumps), sum(steps)
    mask = np.zeros((height, width), bool)
    maps = np.zeros((len(clumps[0].maps), height + 2 * context, width + 2 * context), np.float32)
    for clump, start in zip(clumps, starts.tolist(), strict=True):
        rows, cols = clump.mask.shape
        mask[:rows, start : start + cols] = clump.mask
        maps[:, : rows + 2 * context, start : start + cols + 2 * context] = clump.maps
    return ClumpBatch(mask, maps, starts, tuple(clump.box for clump in clumps))
