"""Find the patches that regions of a slide need, by computing those along the regions' boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from nuclix.engine.inference.patch_predictor import PatchPredictor
from nuclix.engine.inference.prediction_cache import PredictionCache
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.segmentation.hooks import Progress, RunHooks
from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.segmentation.pipeline import PipelineInputs, SlidePipeline
from nuclix.engine.segmentation.region import RegionPatches, RegionShapes
from nuclix.engine.slide.tissue import TissueMask


@dataclass(slots=True)
class _Discarded:
    """An `ObjectStore` that keeps nothing."""

    state: dict[str, NDArray[Any]]

    def append(self, objects: Objects) -> None:
        """Forget the objects."""

    def commit(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing."""


def limited_inputs(
    inputs: PipelineInputs, shapes: RegionShapes, grid: TileGrid, threads: int, hooks: RunHooks
) -> PipelineInputs:
    """Return the inputs of a pipeline limited to regions, so that their nuclei equal those of the whole slide.

    Parameters
    ----------
    inputs : PipelineInputs
        Of the whole slide; its `tissue` says where to compute within the regions.
    shapes : RegionShapes
        In pixels at the model's scale.
    grid : TileGrid
        The slide's grid.
    threads : int
        As for `SlidePipeline`.
    hooks : RunHooks
        Hear that work goes on, and may stop it.

    Returns
    -------
    PipelineInputs
        With the patches in place of the tissue. What was computed on a CPU is remembered.

    Raises
    ------
    NuclixError
        As `SlidePipeline.run`.
    Interrupted
        If the hooks say stop.
    """
    tissue = inputs.tissue
    patches = RegionPatches(shapes, grid, tissue if isinstance(tissue, TissueMask) else None, inputs.post.context)
    predictor = inputs.predictor
    if isinstance(predictor, PatchPredictor) and predictor.device.type == "cpu":
        predictor = PredictionCache(predictor)

    def working(progress: Progress) -> None:
        hooks.on_progress(Progress(0, progress.tiles_total, 0, 0))

    silent = RunHooks(working, hooks.should_stop, patches.record)
    search = replace(inputs, tissue=patches, predictor=predictor, checkpoint=_Discarded({}))
    found = True
    while found:
        SlidePipeline(search, grid, threads, silent).run()
        found = patches.extend()
    patches.complete()
    return replace(search, checkpoint=inputs.checkpoint)
