"""Clumps that are large or sparse: stored as pixels in shared frames of maps, split window by window.

A clump may be larger than memory is wide: dense tissue whose nuclei all touch, or maps that are foreground everywhere.
Such a clump is split in windows that overlap. A nucleus belongs to the window and the part of the clump that hold its
first pixel, and is seen whole as long as it is no larger than the overlap: each nucleus is found once and is not cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.crops import Crop, Frame, inside_box

# A clump that grows past this many pixels is split before it is complete: 1 mm2 of nothing but nuclei at 0.25 um/px.
CLUMP_PIXELS = 4096 * 4096
# Open clumps may hold this many values of maps (512 MB) before all of them are split as far as they have come.
OPEN_VALUES = 1 << 27
# Windows overlap by this much on every side: 32 um at 0.25 um/px, more than a nucleus is long.
OVERLAP_PX = 128
WINDOW_PX = 2048


@dataclass(frozen=True, slots=True)
class ClumpLimits:
    """Bounds on what open clumps hold.

    Attributes
    ----------
    pixels : int
        Pixels that a clump may have before it is split without waiting for the rest of it.
    values : int
        Values of maps (pixels times channels) that all open clumps may hold together.
    overlap : int
        Overlap of windows on every side, in pixels.
    window : int
        Edge of a window without its overlap.
    """

    pixels: int = CLUMP_PIXELS
    values: int = OPEN_VALUES
    overlap: int = OVERLAP_PX
    window: int = WINDOW_PX


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a large clump, ready to be split.

    Attributes
    ----------
    box : Box
        Where it lies.
    mask : (h, w) bool
        The foreground.
    own : (h, w) bool
        Where the first pixel of a nucleus must lie for it to be counted here.
    maps : (channels, h + 2 context, w + 2 context) float32
        The maps.
    """

    box: Box
    mask: NDArray[np.bool_]
    own: NDArray[np.bool_]
    maps: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LargeClump:
    """A clump, or as much of it as has come, as crops.

    Attributes
    ----------
    crops : tuple of Crop
        At least one of them owns pixels.
    limits : ClumpLimits
        Sizes of window and overlap.
    """

    crops: tuple[Crop, ...]
    limits: ClumpLimits

    @property
    def box(self) -> Box:
        """The smallest box around the crops' frames."""
        boxes = [crop.frame.box for crop in self.crops]
        return Box.between(
            min(box.row for box in boxes),
            min(box.col for box in boxes),
            max(box.row_end for box in boxes),
            max(box.col_end for box in boxes),
        )

    def windows(self) -> Iterator[Window]:
        """Yield the windows that own pixels, one at a time."""
        box, step, layers = self.box, self.limits.window, self._layers()
        if box.area <= self.limits.pixels:
            yield _window(box, box, layers)
            return
        for row in range(box.row // step, -(-box.row_end // step)):
            for col in range(box.col // step, -(-box.col_end // step)):
                tile = Box(row * step, col * step, step, step)
                if any(layer.owns(tile) for layer in layers):
                    yield _window(tile.expand(self.limits.overlap).intersect(box), tile, layers)

    def _layers(self) -> list[_Layer]:
        """Return the crops' pixels as masks, one for each frame."""
        layers: dict[int, _Layer] = {}
        for crop in self.crops:
            key, shape = id(crop.frame), crop.frame.box.shape
            if key not in layers:
                layers[key] = _Layer(crop.frame, np.zeros(shape, bool), np.zeros(shape, bool))
            layers[key].mask.reshape(-1)[crop.pixels] = True
            if crop.own:
                layers[key].own.reshape(-1)[crop.pixels] = True
        return list(layers.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A frame with the pixels of all crops in it, and those of them that are own."""

    frame: Frame
    mask: NDArray[np.bool_]
    own: NDArray[np.bool_]

    def owns(self, box: Box) -> bool:
        shared = self.frame.box.intersect(box)
        return bool(shared.area and self.own[shared.slices(self.frame.box)].any())


def _window(box: Box, tile: Box, layers: list[_Layer]) -> Window:
    """Paste layers into a window; `tile` is the part of it whose nuclei are counted."""
    context, channels = layers[0].frame.context, len(layers[0].frame.maps)
    mask, own = np.zeros(box.shape, bool), np.zeros(box.shape, bool)
    maps = np.zeros((channels, box.height + 2 * context, box.width + 2 * context), np.float32)
    for layer in layers:
        place = layer.frame.box
        shared, counted = place.intersect(box), place.intersect(box).intersect(tile)
        if shared.area:
            _paste(maps, box.expand(context), layer.frame.maps, place.expand(context))
            mask[shared.slices(box)] |= layer.mask[shared.slices(place)]
        if counted.area:
            own[counted.slices(box)] |= layer.own[counted.slices(place)]
    return Window(box, mask, own, maps)


def _paste(out: NDArray[np.float32], box: Box, maps: NDArray[np.float32], place: Box) -> None:
    shared = place.intersect(box)
    out[(slice(None), *shared.slices(box))] = maps[(slice(None), *shared.slices(place))]


def merged(clumps: list[LargeClump]) -> list[LargeClump]:
    """Join clumps, which never touch each other, as long as their common box is no larger than a clump may be.

    Clumps that lie in one frame then share a window: a thousand thin ones cost as much as one.
    """
    out: list[LargeClump] = []
    for clump in clumps:
        if out:
            both = LargeClump(out[-1].crops + clump.crops, clump.limits)
            if both.box.area <= clump.limits.pixels:
                out[-1] = both
                continue
        out.append(clump)
    return out


def divide(
    crops: list[Crop], frontier: list[Box], overlap: int, parts: dict[tuple[int, Box], Frame]
) -> tuple[list[Crop], list[Crop]]:
    """Divide a piece of a clump into what can be split now and what has to wait for blocks that have not come.

    Nuclei that begin within `overlap` of such a block wait for it; what lies within twice the overlap is kept to be
    seen by them.

    Parameters
    ----------
    crops : list of Crop
        Of the piece.
    frontier : list of Box
        The blocks that have not come, those within twice the overlap of the piece.
    overlap : int
        In pixels.
    parts : dict
        Frames that were cut out so far, by the frame's identity and the box: pieces that share a frame go on to do so.

    Returns
    -------
    now, later : list of Crop
        `now` has all pixels, of which some are its own; `later` has small frames of its own.
    """
    now: list[Crop] = []
    later: list[Crop] = []
    for crop in crops:
        rows, cols = crop.places()
        near = np.zeros(len(rows), bool)
        for block in frontier:
            near |= inside_box(rows, cols, block.expand(overlap))
        if crop.own and not near.all():
            now.append(crop.at(~near, own=True))
        if near.any() or not crop.own:
            now.append(crop.at(near, own=False) if crop.own else crop)
        left = np.ones(len(rows), bool)
        for block in frontier:
            around = block.expand(2 * overlap)
            here = left & inside_box(rows, cols, around)
            left &= ~here
            key = (id(crop.frame), around)
            for chosen, own in ((here & near, crop.own), (here & ~near, False)):
                if chosen.any():
                    parts[key] = frame = parts.get(key) or crop.frame.part(around)
                    later.append(crop.at(chosen, own=own).moved(frame))
    return now, later
