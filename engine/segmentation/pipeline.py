"""One slide from pixels to stored objects: the stages side by side, with bounded queues between them.

::

    read (pool) -> network (this thread) -> stitch (one thread) -> split (pool) -> checkpoint (this thread)

Only this module knows about threads. Every stage does its work in the same order whatever the number of workers,
or in an order that does not matter, so neither do the results.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PostProcessor
from nuclix.engine.errors import Interrupted
from nuclix.engine.geometry import Box
from nuclix.engine.inference.patch_predictor import MapSource
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.segmentation.classes import ClassRule, find_nuclei, with_found
from nuclix.engine.segmentation.clump_batch import ClumpBatch, pack
from nuclix.engine.segmentation.clumps import Clump, Stitcher
from nuclix.engine.segmentation.context import ContextWindow
from nuclix.engine.segmentation.hooks import ObjectStore, PatchFilter, PipelineFigures, Progress, RunHooks
from nuclix.engine.segmentation.large_clumps import LargeClump
from nuclix.engine.segmentation.measure import (
    SHAPE_ONLY,
    MeasurementSettings,
    objects_of,
    packed_pixels,
    unpacked_pixels,
)
from nuclix.engine.segmentation.objects import PROBABILITY, Objects, concatenate, take
from nuclix.engine.segmentation.stage_timer import StageClock
from nuclix.engine.segmentation.units import Batch, Computing, Part, Patch, Stitched, Unit
from nuclix.engine.slide.view import SlideView

if TYPE_CHECKING:
    from nuclix.engine.slide.normalise import Normaliser

T = TypeVar("T", bound=np.generic)

# Units that may wait between the network and the checkpoint: enough to hide a slow one, few enough for flat memory.
UNITS_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class PipelineInputs:
    """What works on a slide.

    Attributes
    ----------
    view : SlideView
        The slide at the model's scale.
    tissue : PatchFilter or None
        Where to compute; None computes everywhere.
    predictor : MapSource
        The network.
    post : PostProcessor
        From maps to nuclei.
    checkpoint : ObjectStore
        Where objects go.
    rule : ClassRule or None
        How class maps are read, where the network gives any.
    measurements : MeasurementSettings
        How nuclei are outlined and what is measured.
    min_score : float or None
        Nuclei with a lower detection probability are dropped.
    normalise : callable or None
        Stain normalisation of what the network sees; stains are measured on the slide's own pixels.
    """

    view: SlideView
    tissue: PatchFilter | None
    predictor: MapSource
    post: PostProcessor
    checkpoint: ObjectStore
    rule: ClassRule | None = None
    measurements: MeasurementSettings = SHAPE_ONLY
    min_score: float | None = None
    normalise: Normaliser | None = None


class SlidePipeline:
    """Runs one slide.

    Parameters
    ----------
    inputs : PipelineInputs
        What works on the slide.
    grid : TileGrid
        How it is cut.
    threads : int
        Threads for reading, and as many for splitting.
    hooks : RunHooks
        Receive progress, and may stop the slide.
    """

    def __init__(self, inputs: PipelineInputs, grid: TileGrid, threads: int, hooks: RunHooks) -> None:
        self._inputs = inputs
        self._grid = grid
        self._hooks = hooks
        self._threads = threads
        self._clock = StageClock()
        self._figures = PipelineFigures()
        context = inputs.post.context
        edges = grid.block_edges(context)
        self._edges = edges
        self._channels = inputs.predictor.channels
        planes = self._channels + inputs.measurements.needs_pixels
        self._band = ContextWindow(grid, planes, context, self._channels)
        self._stitcher = Stitcher(*edges, context)
        self._readers = ThreadPoolExecutor(threads, "nuclix-read")
        self._stitching = ThreadPoolExecutor(1, "nuclix-stitch")
        self._splitters = ThreadPoolExecutor(threads, "nuclix-split")
        self._flying: deque[Future[Stitched]] = deque()
        self._computing: deque[Computing] = deque()
        self._first_row = 0
        self._landed = np.zeros(2, np.int64)  # tiles and pixels of the units whose objects are in the checkpoint
        if inputs.checkpoint.state:
            self._resume(inputs.checkpoint.state)

    def run(self) -> PipelineFigures:
        """Work through the slide; objects end in the checkpoint.

        Raises
        ------
        NuclixError
            If the slide can't be read, the model fails or the disk is full.
        Interrupted
            If the watch said stop.
        """
        try:
            self._figures.tiles_total = sum(len(self._patches(r, c)) for r, c in self._unit_indices())
            self._report()
            self._run()
        finally:
            for pool in (self._readers, self._stitching, self._splitters):
                pool.shutdown(wait=True, cancel_futures=True)
        self._figures.clumps_cut = self._stitcher.cuts
        self._figures.seconds = self._clock.seconds()
        return self._figures

    def _resume(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on after the last committed row of units."""
        self._first_row, tiles, pixels, nuclei = (int(value) for value in state["done"])
        self._figures = PipelineFigures(tiles=tiles, pixels=pixels, nuclei=nuclei, rows=self._first_row)
        self._figures.rows_resumed, self._figures.pixels_resumed = self._first_row, pixels
        self._landed[:] = tiles, pixels
        self._stitcher.restore(state)
        self._band.restore(state, self._first_row)

    def _unit_indices(self, first_row: int = 0) -> Iterator[tuple[int, int]]:
        for row in range(first_row, self._grid.unit_rows):
            for col in range(self._grid.unit_cols):
                yield row, col

    def _patches(self, row: int, col: int) -> list[Part]:
        """Return what is needed of the unit's patches: what lies on the slide, and within the margin from tissue.

        It does not depend on what computes the network; a network of dynamic shapes sees no more than that.
        """
        tissue, margin = self._inputs.tissue, self._grid.patch.margin
        parts = []
        for core in self._grid.patches_of(row, col):
            near = core if tissue is None else tissue.within(core, margin)
            if near is not None:
                box = self._grid.part(core, near)
                parts.append(Part(box, box if self._inputs.predictor.crops else core))
        return parts

    def _run(self) -> None:
        batch: Batch = []
        units: deque[Unit] = deque()
        for unit, part, read in self._reads():
            if batch and unit.row != batch[-1][0].row:
                # A batch never crosses rows: after a restart at a row, each patch has the neighbours it had before.
                self._predict(batch)
                batch = []
            if unit is not (units[-1] if units else None):
                units.append(unit)
            if part is not None and read is not None:
                batch.append((unit, part, read))
                if len(batch) == self._inputs.predictor.batch:
                    self._predict(batch)
                    batch = []
            while units and units[0].missing == 0:
                self._send(units.popleft())
        if batch:
            self._predict(batch)
        while self._computing:
            self._place()
        while units:
            self._send(units.popleft())
        while self._flying:
            self._land()

    def _reads(self) -> Iterator[tuple[Unit, Part | None, Future[Patch] | None]]:
        """Yield every patch with its pixels on their way, read ahead by two batches; background units without."""
        ahead: deque[tuple[Unit, Part | None, Future[Patch] | None]] = deque()
        depth = 2 * self._inputs.predictor.batch + self._threads
        waiting = 0
        for row, col in self._unit_indices(self._first_row):
            parts = self._patches(row, col)
            box = self._grid.unit_box(row, col)
            whole = sum(part.box.intersect(box).area for part in parts) == box.area
            unit = Unit(row, col, box, len(parts), whole)
            if not parts:
                ahead.append((unit, None, None))
            for part in parts:
                ahead.append((unit, part, self._readers.submit(self._read, part)))
                waiting += 1
                while waiting > depth:
                    item = ahead.popleft()
                    waiting -= item[2] is not None
                    yield item
        yield from ahead

    def _read(self, part: Part) -> Patch:
        with self._clock.stage("read"):
            box = part.seen.expand(self._grid.patch.margin)
            pixels = self._inputs.view.read_patch(box)
            normalise = self._inputs.normalise
            seen = pixels if normalise is None else normalise(pixels)
            if not self._inputs.measurements.needs_pixels:
                return Patch(seen, None)
            return Patch(seen, packed_pixels(pixels[part.box.slices(box)]))

    def _predict(self, batch: Batch) -> None:
        """Start to compute a batch; place the maps of earlier ones, as many as need not be under way any more."""
        patches = [read.result() for _, _, read in batch]
        predictor = self._inputs.predictor
        with self._clock.stage("network"):
            maps = predictor.submit([patch.pixels for patch in patches])
        self._computing.append(Computing(batch, patches, maps))
        while len(self._computing) > predictor.in_flight:
            self._place()

    def _place(self) -> None:
        """Put the middles of the oldest batch that is under way into their units' maps."""
        batch = self._computing.popleft()
        with self._clock.stage("network"):
            maps = batch.maps()
        if self._figures.first_tile_at is None:
            self._figures.first_tile_at = time.time()
        for (unit, part, _), tile, patch in zip(batch.places, maps, batch.patches, strict=True):
            self._figures.pixels += unit.place(part, tile, patch.packed)
        self._figures.tiles += len(batch.places)
        self._report()

    def _report(self) -> None:
        figures = self._figures
        self._hooks.on_progress(
            Progress(figures.tiles, figures.tiles_total, figures.pixels, figures.nuclei, figures.rows)
        )

    def _send(self, unit: Unit) -> None:
        """Hand a complete unit to the stitcher; wait where too many are on their way."""
        self._flying.append(self._stitching.submit(self._stitch, unit))
        while len(self._flying) > UNITS_IN_FLIGHT:
            self._land()

    def _land(self) -> None:
        """Take the objects of the oldest unit into the checkpoint; after a row's last unit make them durable."""
        stitched = self._flying.popleft().result()
        for future in stitched.objects:
            objects = future.result()
            with self._clock.stage("checkpoint"):
                self._inputs.checkpoint.append(objects)
            self._figures.nuclei += len(objects)
        unit = stitched.unit
        self._landed += (unit.tiles, unit.pixels)
        if stitched.state is not None:
            done = np.array([unit.row + 1, *self._landed, self._figures.nuclei], np.int64)
            with self._clock.stage("checkpoint"):
                self._inputs.checkpoint.commit({**stitched.state, "done": done})
            self._figures.rows = unit.row + 1
            if unit.row + 1 < self._grid.unit_rows and self._hooks.should_stop():
                raise Interrupted(f"stopped after row {unit.row + 1} of {self._grid.unit_rows}")

    def _stitch(self, unit: Unit) -> Stitched:
        """Find the clumps that this unit completes and send them to be split."""
        with self._clock.stage("stitch"):
            post = self._inputs.post
            region = self._band.region(unit.row, unit.col)
            window = self._band.feed(unit.row, unit.col, unit.maps)
            mask = None if window is None else _inner(post.foreground(window[: len(post.maps)]), post.context)
            if mask is not None and self._hooks.on_foreground is not None:
                self._hooks.on_foreground(region, mask)
            whole: list[Clump] = []
            waited: list[Clump | LargeClump] = []
            for row, col in self._blocks_in(region):
                box = self._stitcher.block_box(row, col)
                if window is None or mask is None or not mask[box.slices(region)].any():
                    waited += self._stitcher.add_empty(row, col)
                    continue
                maps = window[(slice(None), *box.expand(post.context).slices(region.expand(post.context)))]
                for clump in self._stitcher.add(row, col, maps, mask[box.slices(region)]):
                    if isinstance(clump, Clump) and clump.box == box:
                        whole.append(clump)
                    else:
                        waited.append(clump)
            jobs = [self._splitters.submit(self._split, clump) for clump in whole]
            small = [clump for clump in waited if isinstance(clump, Clump)]
            large = [clump for clump in waited if isinstance(clump, LargeClump)]
            jobs += [self._splitters.submit(self._split_canvas, canvas) for canvas in pack(small, post.context)]
            jobs += [self._splitters.submit(self._split_large, clump) for clump in large]
            last = unit.col == self._grid.unit_cols - 1
            unit.maps = None
            state = {**self._stitcher.snapshot(), **self._band.snapshot()} if last else None
            return Stitched(unit, jobs, state)

    def _blocks_in(self, region: Box) -> Iterator[tuple[int, int]]:
        """Yield the blocks that make up a unit's region."""
        rows = _between(self._edges[0], region.row, region.row_end)
        cols = _between(self._edges[1], region.col, region.col_end)
        for row in rows:
            for col in cols:
                yield row, col

    def _objects(self, mask: NDArray[np.bool_], maps: NDArray[np.float32], origin: Box) -> Objects:
        post = self._inputs.post
        context = post.context
        rgb = unpacked_pixels(_inner(maps[-1], context)) if self._inputs.measurements.needs_pixels else None
        maps = maps[: self._channels]
        found = find_nuclei(post, maps, np.pad(mask, context) if context else mask, self._inputs.rule)
        score = None if found.scores is not None else _inner(post.score(maps[: len(post.maps)]), context)
        labels = _inner(found.labels, context)
        objects = objects_of(labels, score, origin, self._inputs.view.scale.mpp, self._inputs.measurements, rgb)
        objects = with_found(objects, found)
        if self._inputs.min_score is None:
            return objects
        return take(objects, np.flatnonzero(objects.measurements[PROBABILITY] >= self._inputs.min_score))

    def _split(self, clump: Clump) -> Objects:
        with self._clock.stage("split"):
            return self._objects(clump.mask, clump.maps, clump.box)

    def _split_large(self, clump: LargeClump) -> Objects:
        """Split a clump window by window; a nucleus counts where its first pixel lies."""
        with self._clock.stage("split"):
            parts = []
            for window in clump.windows():
                objects = self._objects(window.mask, window.maps, window.box)
                rows, cols = (objects.first - (window.box.row, window.box.col)).T
                parts.append(take(objects, np.flatnonzero(window.own[rows, cols])))
            return concatenate(parts)

    def _split_canvas(self, canvas: ClumpBatch) -> Objects:
        with self._clock.stage("split"):
            return canvas.placed(self._objects(canvas.mask, canvas.maps, Box(0, 0, *canvas.mask.shape)))


def _inner(array: NDArray[T], context: int) -> NDArray[T]:
    """Take `context` pixels off every side."""
    return array[..., context : array.shape[-2] - context, context : array.shape[-1] - context] if context else array


def _between(edges: tuple[int, ...], start: int, end: int) -> range:
    """Return the indices of the intervals of `edges` that make up [start, end)."""
    return range(int(np.searchsorted(edges, start)), int(np.searchsorted(edges, end)))
