"""Pixels of clumps in frames of maps."""

from __future__ import annotations

from collections.abc import Sequence
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


def crops_of(
    box: Box, places: Sequence[Box], pixels: Sequence[NDArray[np.int32]], maps: NDArray[np.float32]
) -> list[Crop]:
    """Return clumps of a block, each with a copy of the maps of its box.

    Parameters
    ----------
    box : Box
        The block.
    places : sequence of Box
        The clumps' boxes, counted from the block's corner.
    pixels : sequence of (n,) int32
        Flat indices into them.
    maps : (channels, h + 2 context, w + 2 context) float32
        Of the block and what lies around it.
    """
    around = maps.shape[1] - box.height
    return [
        Crop(
            Frame(
                place.shift(box.row, box.col),
                maps[:, place.row : place.row_end + around, place.col : place.col_end + around].copy(),
            ),
            inside.copy(),
        )
        for place, inside in zip(places, pixels, strict=True)
    ]


def crops_of_one_frame(
    box: Box, places: Sequence[Box], pixels: Sequence[NDArray[np.int32]], maps: NDArray[np.float32]
) -> list[Crop]:
    """Return clumps of a block, as `crops_of`, with one copy of the block's maps."""
    frame = Frame(box, maps.copy())
    return [
        Crop(frame, _flat(inside, place, Box(0, 0, *box.shape)).astype(np.int32))
        for place, inside in zip(places, pixels, strict=True)
    ]


def _flat(pixels: NDArray[np.int32], place: Box, box: Box) -> NDArray[np.int64]:
    """Turn flat indices into `place` into those into `box`, which holds it."""
    rows, cols = np.divmod(pixels.astype(np.int64), place.width)
    return (rows + (place.row - box.row)) * box.width + cols + (place.col - box.col)


def joined(crops: Sequence[Crop], box: Box) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return the mask and the maps of one clump.

    Parameters
    ----------
    crops : sequence of Crop
        All of its pixels.
    box : Box
        The smallest box around their frames.

    Returns
    -------
    mask : (h, w) bool
    maps : (channels, h + 2 context, w + 2 context) float32
        0 where no frame lies.
    """
    mask, first = np.zeros(box.area, bool), crops[0].frame
    if all(crop.frame is first for crop in crops):
        for crop in crops:
            mask[crop.pixels] = True
        return mask.reshape(box.shape), first.maps
    around = 2 * first.context
    maps = np.zeros((len(first.maps), box.height + around, box.width + around), np.float32)
    for crop in crops:
        place = crop.frame.box
        mask[_flat(crop.pixels, place, box)] = True
        top, left = place.row - box.row, place.col - box.col
        maps[:, top : top + place.height + around, left : left + place.width + around] = crop.frame.maps
    return mask.reshape(box.shape), maps
