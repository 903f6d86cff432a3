"""Open clumps as arrays, for the checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.crops import Crop, Frame


@dataclass(frozen=True, slots=True)
class PieceState:
    """A piece of a clump: its number, its group's, and its pixels."""

    number: int
    root: int
    crops: list[Crop]


@dataclass(frozen=True, slots=True)
class GroupState:
    """A clump that waits; see `clumps.Stitcher`."""

    root: int
    waiting: int
    pixels: int
    values: int
    divided: bool


@dataclass(frozen=True, slots=True)
class StitcherState:
    """What a stitcher knows between rows of blocks.

    Attributes
    ----------
    counts : tuple of int
        Rows of blocks that have come, the next piece's number, how often clumps were handed on in part.
    pieces : list of PieceState
        By number.
    groups : list of GroupState
        By root.
    edges : list of (column, direction, numbers)
        The pieces along the lower edges of the last row of blocks.
    """

    counts: tuple[int, int, int]
    pieces: list[PieceState]
    groups: list[GroupState]
    edges: list[tuple[int, int, NDArray[np.int64]]]


def packed(state: StitcherState) -> dict[str, NDArray[Any]]:
    """Return the state as arrays; crops that share a frame still do."""
    frames: dict[int, tuple[int, Frame]] = {}
    crops = [(piece.number, crop) for piece in state.pieces for crop in piece.crops]
    for _, crop in crops:
        frames.setdefault(id(crop.frame), (len(frames), crop.frame))
    maps = [frame.maps for _, frame in frames.values()]
    boxes = [(box.row, box.col, *box.shape) for box in (frame.box for _, frame in frames.values())]
    table = [(number, frames[id(crop.frame)][0], crop.own, len(crop.pixels)) for number, crop in crops]
    groups = [(item.root, item.waiting, item.pixels, item.values, item.divided) for item in state.groups]
    return {
        "rows": np.array(state.counts, np.int64),
        "pieces": np.array([(piece.number, piece.root) for piece in state.pieces], np.int64).reshape(-1, 2),
        "groups": np.array(groups, np.int64).reshape(-1, 5),
        "frames": np.array(boxes, np.int64).reshape(-1, 4),
        "channels": np.array([len(item) for item in maps[:1]], np.int64),
        "maps": _joined([item.reshape(-1) for item in maps], np.float32),
        "crops": np.array(table, np.int64).reshape(-1, 4),
        "pixels": _joined([crop.pixels for _, crop in crops], np.int32),
        "edge_places": np.array([(col, d, len(image)) for col, d, image in state.edges], np.int64).reshape(-1, 3),
        "edges": _joined([image for _, _, image in state.edges], np.int64),
    }


def unpacked(arrays: Mapping[str, NDArray[Any]], context: int) -> StitcherState:
    """Return the state that `packed` was given; `context` is the pixels of maps around each frame."""
    frames, start = [], 0
    for place in arrays["frames"].tolist():
        box = Box(*place)
        shape = (int(arrays["channels"][0]), *box.expand(context).shape)
        size = shape[0] * shape[1] * shape[2]
        frames.append(Frame(box, np.array(arrays["maps"][start : start + size], np.float32).reshape(shape)))
        start += size
    crops: dict[int, list[Crop]] = {}
    start = 0
    for number, frame, own, count in arrays["crops"].tolist():
        pixels = np.array(arrays["pixels"][start : start + count], np.int32)
        crops.setdefault(number, []).append(Crop(frames[frame], pixels, bool(own)))
        start += count
    edges, start = [], 0
    for col, d, length in arrays["edge_places"].tolist():
        edges.append((col, d, np.array(arrays["edges"][start : start + length], np.int64)))
        start += length
    rows, next_piece, cuts = arrays["rows"].tolist()
    groups = arrays["groups"].tolist()
    return StitcherState(
        (rows, next_piece, cuts),
        [PieceState(number, root, crops.get(number, [])) for number, root in arrays["pieces"].tolist()],
        [GroupState(root, waiting, pixels, values, bool(divided)) for root, waiting, pixels, values, divided in groups],
        edges,
    )


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *arrays])
