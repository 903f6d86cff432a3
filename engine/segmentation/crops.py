"""Pixels of clumps in frames of maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Maps of a box of the slide and `context` pixels around it; crops of several clumps may share one.

    Attributes
    ----------
    box : Box
        Where it lies, at the model's scale.
    maps : (channels, h + 2 context, w + 2 context) float32
        The maps.
    """

    box: Box
    maps: NDArray[np.float32]

    @property
    def context(self) -> int:
        """Pixels of maps around the box."""
        return (self.maps.shape[1] - self.box.height) // 2

    def part(self, box: Box) -> Frame:
        """Return a copy of the frame's part inside a box; the frame itself where that is most of it."""
        inside = self.box.intersect(box)
        if 2 * inside.area > self.box.area:
            return self
        around = inside.expand(self.context).slices(self.box.expand(self.context))
        return Frame(inside, self.maps[(slice(None), *around)].copy())


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """Pixels of a clump in a frame.

    Attributes
    ----------
    frame : Frame
        The maps.
    pixels : (n,) int32
        Flat indices into the frame's box, in raster order.
    own : bool
        Whether nuclei that begin here are the clump's. The others were found before; their pixels are there to be seen.
    """

    frame: Frame
    pixels: NDArray[np.int32]
    own: bool = True

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pixels' rows and columns on the slide."""
        rows, cols = np.divmod(self.pixels.astype(np.int64), self.frame.box.width)
        return rows + self.frame.box.row, cols + self.frame.box.col

    def at(self, chosen: NDArray[np.bool_], *, own: bool) -> Crop:
        """Return the crop of the chosen pixels."""
        return Crop(self.frame, self.pixels[chosen], own)

    def moved(self, frame: Frame) -> Crop:
        """Return the crop in a frame that is a part of its own one and holds all its pixels."""
        if frame is self.frame:
            return self
        rows, cols = self.places()
        flat = (rows - frame.box.row) * frame.box.width + (cols - frame.box.col)
        return Crop(frame, flat.astype(np.int32), self.own)


def inside_box(rows: NDArray[np.int64], cols: NDArray[np.int64], box: Box) -> NDArray[np.bool_]:
    """Return which of the places lie in a box."""
    return (rows >= box.row) & (rows < box.row_end) & (cols >= box.col) & (cols < box.col_end)


def crop_of(box: Box, labels: NDArray[np.int32], label: int, place: Box, maps: NDArray[np.float32]) -> Crop:
    """Return a label's pixels with a copy of the maps of its box."""
    context = (maps.shape[1] - box.height) // 2
    around = Box(place.row, place.col, place.height + 2 * context, place.width + 2 * context)
    frame = Frame(place.shift(box.row, box.col), maps[(slice(None), *around.slices())].copy())
    return Crop(frame, np.flatnonzero(labels[place.slices()] == label).astype(np.int32))


def crops_of_one_frame(
    box: Box, labels: NDArray[np.int32], chosen: NDArray[np.int64], maps: NDArray[np.float32]
) -> list[Crop]:
    """Return the chosen labels' pixels, with one copy of the block's maps."""
    frame = Frame(box, maps.copy())
    flat = labels.reshape(-1)
    wanted = np.zeros(int(labels.max()) + 1, bool)
    wanted[chosen] = True
    pixels = np.flatnonzero(wanted[flat]).astype(np.int32)
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    ends = np.searchsorted(flat[pixels], chosen, side="right")
    starts = np.searchsorted(flat[pixels], chosen, side="left")
    return [Crop(frame, pixels[a:b].copy()) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
