"""How large the margin of a model's patches must be: the same image through grids of several margins, compared.

The patch grid of a slide is fixed, so results never depend on how a run is cut, whatever the margin is. A margin that
is smaller than what the network can see changes maps near the edges of the grid. This module measures by how much,
and what it means for nuclei.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.inference.patch_predictor import PatchPredictor
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.model_card import PatchShape

if TYPE_CHECKING:
    from nuclix.engine.contracts import PostProcessor
    from nuclix.engine.inference.model_file import LoadedModel

MATCHED = 0.5  # IoU from which on two outlines are the same nucleus, as in every score
SAME = 0.9  # and from which on they are the same outline: a ring of half a pixel around a nucleus of 40 px
Read = Callable[[Box], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on which margins are compared.

    Attributes
    ----------
    name : str
        For the table.
    shape : tuple of int
        Height and width in pixels at the model's scale.
    read : callable
        Reads a box, which may reach over the edges.
    truth : (H, W) int32, optional
        Annotated nuclei.
    """

    name: str
    shape: tuple[int, int]
    read: Read
    truth: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class MarginFigures:
    """What one patch shape does, over all pictures.

    Attributes
    ----------
    patch : PatchShape
        Patch and margin.
    useful : float
        Share of the computed pixels that are kept.
    map_change : float
        Largest difference of a map from the reference, in parts of that map's range.
    nuclei : int
        Found with this margin.
    lost : int
        Nuclei without a partner of IoU > 0.5 in the reference, and nuclei of the reference without one here.
    changed : int
        Nuclei whose partner's IoU is at most 0.9.
    aji : float or None
        Mean AJI against the truth, where there is any.
    """

    patch: PatchShape
    useful: float
    map_change: float
    nuclei: int
    lost: int
    changed: int
    aji: float | None


def compare_margins(
    model: LoadedModel,
    settings: InferenceSettings,
    post: PostProcessor,
    pictures: Sequence[Picture],
    shapes: Sequence[PatchShape],
) -> list[MarginFigures]:
    """Compare patch shapes with the first one of them.

    Parameters
    ----------
    model : LoadedModel
        Its card's patch is not used.
    settings : InferenceSettings
        Device and precision.
    post : PostProcessor
        From maps to labels.
    pictures : sequence of Picture
        At least one.
    shapes : sequence of PatchShape
        The first is the reference: its margin should be at least as far as the network sees.

    Returns
    -------
    list of MarginFigures
        In the order of `shapes`.

    Raises
    ------
    ModelError, DeviceError, DeviceMemoryError
        If the network can't be run.
    """
    sums = [_Sum(shape) for shape in shapes]
    predictors = [
        Predictor(replace(model, card=replace(model.card, patch=shape)), replace(settings, batch=1)) for shape in shapes
    ]
    for picture in pictures:
        expected = _Found(np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.int32))
        for index, (sum_, predictor) in enumerate(zip(sums, predictors, strict=True)):
            maps = stitched_maps(predictor, picture)[: len(post.maps)]
            found = _Found(maps, post.split(maps, post.foreground(maps)))
            expected = found if index == 0 else expected
            sum_.add(found, expected, picture.truth)
    return [sum_.figures() for sum_ in sums]


def stitched_maps(predictor: PatchPredictor, picture: Picture) -> NDArray[np.float32]:
    """Return the (channels, H, W) maps of a picture, from the patches of a grid that is anchored at its corner."""
    patch = predictor.patch
    height, width = picture.shape
    maps = np.zeros((predictor.channels, height, width), np.float32)
    whole = Box(0, 0, height, width)
    for top in range(0, height, patch.valid):
        for left in range(0, width, patch.valid):
            core = Box(top, left, patch.valid, patch.valid)
            tile = predictor([picture.read(core.expand(patch.margin))])[0]
            shared = core.intersect(whole)
            maps[(slice(None), *shared.slices(whole))] = tile[(slice(None), *shared.slices(core))]
    return maps


def mirrored(image: NDArray[np.uint8]) -> Read:
    """Return a reader of an image in memory that mirrors it beyond its edges."""

    def read(box: Box) -> NDArray[np.uint8]:
        rows = _reflected(np.arange(box.row, box.row_end), image.shape[0])
        cols = _reflected(np.arange(box.col, box.col_end), image.shape[1])
        return image[rows[:, None], cols]

    return read


def _reflected(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return indices into an axis of `size` that goes on as its own mirror image."""
    place = index % (2 * size)
    return np.where(place < size, place, 2 * size - 1 - place)


@dataclass(frozen=True, slots=True)
class _Found:
    maps: NDArray[np.float32]
    labels: NDArray[np.int32]


class _Sum:
    """Adds up what one patch shape does over the pictures."""

    def __init__(self, patch: PatchShape) -> None:
        self._patch = patch
        self._change, self._nuclei, self._lost, self._changed = 0.0, 0, 0, 0
        self._ajis: list[float] = []

    def add(self, found: _Found, expected: _Found, truth: NDArray[Any] | None) -> None:
        from nuclix.ext.overlap import aji, overlap_table

        extent = np.ptp(expected.maps, axis=(1, 2))
        apart = np.abs(found.maps - expected.maps).max(axis=(1, 2))
        self._change = max(self._change, float(np.max(apart / np.where(extent > 0, extent, 1))))
        table = overlap_table(expected.labels, found.labels)
        self._nuclei += len(table.prediction_labels)
        matched = int((table.iou > MATCHED).sum())
        self._lost += len(table.truth_labels) + len(table.prediction_labels) - 2 * matched
        self._changed += int(((table.iou > MATCHED) & (table.iou <= SAME)).sum())
        if truth is not None:
            self._ajis.append(aji(overlap_table(truth, found.labels)))

    def figures(self) -> MarginFigures:
        return MarginFigures(
            self._patch,
            (self._patch.valid / self._patch.size) ** 2,
            self._change,
            self._nuclei,
            self._lost,
            self._changed,
            float(np.mean(self._ajis)) if self._ajis else None,
        )
