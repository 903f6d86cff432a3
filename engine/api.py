"""The Python API: load a model once, then segment slides, regions of slides, or images in memory.

Everything runs in this process, on threads: there is no state outside of what is returned, and no need for
``if __name__ == "__main__"``. The nuclei are those of ``nuclix run`` with the same options.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import ModelCard, SlideReader
from nuclix.engine.errors import DeviceMemoryError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.nuclei import Nuclei, as_box, opened
from nuclix.engine.run_config import DEFAULT_MODEL, NORMALISATIONS, RunConfig
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.segmentation.slide import SegmentationContext

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from nuclix.engine.inference.patch_predictor import PatchPredictor
    from nuclix.engine.inference.tiling import TileGrid
    from nuclix.engine.segmentation.measure import MeasurementSettings
    from nuclix.engine.segmentation.objects import Objects
    from nuclix.engine.segmentation.region import RegionShapes
    from nuclix.engine.segmentation.slide_stains import SlideStains
    from nuclix.engine.slide.normalise import Normaliser
    from nuclix.engine.slide.tissue import TissueMask
    from nuclix.engine.slide.view import SlideView


@dataclass(frozen=True, slots=True, repr=False)
class Model:
    """A model on its device, with its post-processor; made by `load_model`, used for any number of slides.

    Attributes
    ----------
    context : SegmentationContext
        What the command line shares between the slides of a worker.
    """

    context: SegmentationContext

    @property
    def card(self) -> ModelCard:
        """What the model file states: scale, patch, classes, post-processor, training data and licence."""
        return self.context.model.card

    @property
    def device(self) -> str:
        """Where the network runs, such as "cpu" or "cuda:0"."""
        return str(self.context.predictor.device)

    @property
    def sha256(self) -> str:
        """Hash of the model file."""
        return self.context.model.sha256

    def __repr__(self) -> str:
        return f"<Model {self.card.name}: {self.card.scale.mpp:g} µm/px, {self.card.postprocessor}, on {self.device}>"


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    config: RunConfig | None = None,
    *,
    trust: bool = False,
) -> Model:
    """Load a model onto a device.

    Parameters
    ----------
    name_or_path : str or Path
        An installed model, such as "dist-kumar16", or a model file.
    device : str
        "auto", "cpu", "cuda", "cuda:N" or "mps".
    config : RunConfig, optional
        The other options of ``nuclix run`` for the model, outlines, measurements and threads, such as
        ``RunConfig(tta=True, outline="pixel")``. Options of slides, results and fault tolerance are not used.
    trust : bool
        Run the model file's program without checking that it only computes, as ``--trust-model`` does.

    Returns
    -------
    Model

    Raises
    ------
    ModelError, PluginError, UsageError
        If the model, its post-processor or the device can't be used.

    Examples
    --------
    >>> model = load_model("dist-kumar16", device="cpu")  # doctest: +SKIP
    """
    from nuclix.engine.segmentation.slide import make_context

    options = replace(config or RunConfig(), model=str(name_or_path), device=device)
    options = replace(options, trust_model=trust or options.trust_model)
    return Model(make_context(options, time.time()))


def segment(
    slide: str | Path | SlideReader,
    model: Model,
    *,
    region: Box | Sequence[int] | BaseGeometry | None = None,
    tissue: bool = True,
    mpp: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Nuclei:
    """Segment the nuclei of a slide, or of a region of it.

    Parameters
    ----------
    slide : str, Path or SlideReader
        A file, or what `open_slide` returned; a reader stays open.
    model : Model
        From `load_model`.
    region : Box, (x, y, width, height) or shapely geometry, optional
        In pixels of the full resolution, counted from the corner of what QuPath shows. Only the patches that the
        region needs are computed (of a polygon, its bounding box); nuclei whose centroid lies in it are returned, and
        they equal those of the whole slide.
    tissue : bool
        Skip background (regions without tissue).
    mpp : float, optional
        Micrometres per pixel at full resolution, for slides that do not state it.
    on_progress : callable, optional
        Called with a `Progress` (tiles, tiles_total, nuclei, ...) in this thread, after every forward pass.

    Returns
    -------
    Nuclei
        In the order of the result files: neighbours together. A slide of a million nuclei takes about 1 GB.

    Raises
    ------
    SlideError
        If the slide can't be read, does not state its scale, or is far coarser than the model and the model was loaded
        without ``RunConfig(allow_upsampling=True)``.
    ModelError
        If the network fails.

    Examples
    --------
    >>> nuclei = segment("slide.svs", model, region=(10_000, 8_000, 2048, 2048))  # doctest: +SKIP
    """
    from nuclix.engine.slide.open import fingerprint, slide_scale
    from nuclix.engine.slide.scale import check_upsampling
    from nuclix.engine.slide.view import SlideView

    with opened(slide, mpp or 1.0) as reader:
        scale = slide_scale(reader.info, mpp)
        check_upsampling(reader.info, scale, model.card.scale, model.context.config)
        view = SlideView(reader, model.card.scale, scale)
        job = _Job(model, view, scale, fingerprint(reader.info.path), on_progress or _ignore)
        if isinstance(region, Box | Sequence) or region is None:
            return job.nuclei(None if region is None else as_box(region), tissue)
        return _inside(job.nuclei(_bounding_box(region), tissue), region)


def _bounding_box(shape: BaseGeometry) -> Box:
    if shape.is_empty:
        raise ValueError("the region is empty")
    left, top, right, bottom = shape.bounds
    return Box.between(math.floor(top), math.floor(left), math.floor(bottom) + 1, math.floor(right) + 1)


def _inside(nuclei: Nuclei, shape: BaseGeometry) -> Nuclei:
    """Return the nuclei whose centroid lies in a geometry or on its boundary."""
    import shapely

    row, col = nuclei.centroids.T
    return nuclei[shapely.intersects_xy(shape, col, row)]


def segment_image(
    rgb: NDArray[np.uint8],
    model: Model,
    *,
    mpp: float,
    tissue: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Nuclei:
    """Segment the nuclei of an image in memory.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
        The image, values 0..255.
    model : Model
        From `load_model`.
    mpp : float
        Micrometres per pixel; the image is resampled to the model's scale.
    tissue : bool
        Skip background (regions without tissue).
    on_progress : callable, optional
        As in `segment`.

    Returns
    -------
    Nuclei
        In pixels of `rgb`: ``nuclei.labels(rgb.shape[:2])`` fits it.

    Raises
    ------
    TypeError, ValueError
        If the image is not (H, W, 3) uint8.
    SlideError
        If `mpp` is not one that a microscope has.
    ModelError
        If the network fails.

    Examples
    --------
    >>> nuclei = segment_image(rgb, model, mpp=0.25)  # doctest: +SKIP
    """
    from nuclix.engine.slide.array import ArrayReader
    from nuclix.engine.slide.open import slide_scale
    from nuclix.engine.slide.view import SlideView

    reader = ArrayReader(np.asarray(rgb), mpp)
    scale = slide_scale(reader.info)
    view = SlideView(reader, model.card.scale, scale)
    return _Job(model, view, scale, reader.fingerprint(), on_progress or _ignore).nuclei(None, tissue)


@dataclass(frozen=True, slots=True)
class _Job:
    """One slide to segment: the model, the slide at the model's scale, its own scale, and who hears of progress."""

    model: Model
    view: SlideView
    scale: Scale
    fingerprint: str
    on_progress: Callable[[Progress], None]

    def nuclei(self, region: Box | None, tissue: bool) -> Nuclei:
        """Segment the slide, or the nuclei whose centroids lie in a region of it."""
        from nuclix.engine.inference.tiling import TileGrid
        from nuclix.engine.run_config import result_settings
        from nuclix.engine.segmentation.description import slide_header
        from nuclix.engine.slide.tissue import tissue_mask

        view, context = self.view, self.model.context
        mask = tissue_mask(view.reader, view) if tissue else None
        grid = TileGrid(view.height, view.width, context.model.card.patch, context.config.block)
        classes = context.classes.mapping.classes
        stains = self._stains(mask)
        settings = {**result_settings(context.config), **stains.vectors}
        header = slide_header(view, classes, context.model, self.fingerprint, settings)
        if region is None:
            return Nuclei(self._objects(grid, mask, stains.settings), header, self.scale.mpp)
        objects = self._objects(grid, mask, stains.settings, self._shapes(region))
        found = Nuclei(objects, header, self.scale.mpp)
        row, col = found.centroids.T
        inside = (row >= region.row) & (row < region.row_end) & (col >= region.col) & (col < region.col_end)
        return found[inside]

    def _shapes(self, region: Box) -> RegionShapes:
        """Return a region, given in level-0 pixels from the corner of the slide's bounds, at the model's scale."""
        import shapely

        from nuclix.engine.segmentation.cells import nuclei_reach
        from nuclix.engine.segmentation.region import RegionShapes
        from nuclix.engine.slide.view import slide_bounds

        bounds, down = slide_bounds(self.view.info), self.view.downsample
        box = region.shift(bounds.row, bounds.col)
        edges = np.array([box.col, box.row, box.col_end, box.row_end]) / down
        reach = nuclei_reach(self.model.context.measurements, self.view.scale.mpp)
        edges += (-reach, -reach, reach, reach)
        return RegionShapes([shapely.box(*edges)] if region.area else [])

    def _stains(self, tissue: TissueMask | None) -> SlideStains:
        """Return how stains are measured; pixels are read only where their vectors are estimated."""
        from nuclix.engine.segmentation.slide_stains import SlideStains, slide_stains
        from nuclix.engine.slide.samples import tissue_samples

        settings = self.model.context.measurements
        if not settings.estimate_stains:
            return SlideStains(settings)
        return slide_stains(settings, tissue_samples(self.view.reader, self.view, tissue).pixels)

    def _normaliser(self, tissue: TissueMask | None) -> Normaliser | None:
        """Return the stain normalisation that the model was loaded with; None for none."""
        from nuclix.engine.slide.normalise import stain_normaliser, stain_profile
        from nuclix.engine.slide.samples import tissue_samples

        method = self.model.context.config.stain_normalisation
        if method == NORMALISATIONS[0]:
            return None
        return stain_normaliser(method, stain_profile(tissue_samples(self.view.reader, self.view, tissue).pixels))

    def _objects(
        self,
        grid: TileGrid,
        tissue: TissueMask | None,
        settings: MeasurementSettings,
        shapes: RegionShapes | None = None,
    ) -> Objects:
        """Run the pipeline; where the device is out of memory, again with half the batch size."""
        predictor = self.model.context.predictor
        while True:
            try:
                with _enough_threads(predictor):
                    return self._run(grid, tissue, settings, shapes)
            except DeviceMemoryError:
                if predictor.batch == 1:
                    raise
            predictor.use_batch(predictor.batch // 2)

    def _run(
        self, grid: TileGrid, tissue: TissueMask | None, measurements: MeasurementSettings, shapes: RegionShapes | None
    ) -> Objects:
        from nuclix.engine.segmentation.cells import CellMaker
        from nuclix.engine.segmentation.hooks import RunHooks
        from nuclix.engine.segmentation.memory import MemoryStore
        from nuclix.engine.segmentation.objects import concatenate
        from nuclix.engine.segmentation.pipeline import PipelineInputs, SlidePipeline
        from nuclix.engine.segmentation.region_search import limited_inputs

        context, store = self.model.context, MemoryStore()
        rule, threads = context.classes.rule, context.config.threads
        normalise = self._normaliser(tissue)
        inputs = PipelineInputs(
            self.view, tissue, context.predictor, context.post, store, rule, measurements, context.config.min_score,
            normalise,
        )  # fmt: skip
        hooks = RunHooks(self.on_progress, _never)
        if shapes is not None:
            inputs = limited_inputs(inputs, shapes, grid, threads, hooks)
        figures = SlidePipeline(inputs, grid, threads, hooks).run()
        if figures.clumps_cut:
            message = f"clumps of foreground larger than the limit were cut {figures.clumps_cut} times at block edges"
            warnings.warn(f"{message}; the model may not suit this slide", RuntimeWarning, stacklevel=2)
        empty = _no_objects(self.view.scale.mpp, measurements)
        objects = store.objects(empty)
        if measurements.cell_expansion is not None:
            objects = concatenate(list(CellMaker(objects, self.view, measurements).blocks(threads)))
        return context.classes.mapping.apply(objects)


def _no_objects(mpp: float, measurements: MeasurementSettings) -> Objects:
    """Return zero objects with the columns that the measurements give."""
    from nuclix.engine.segmentation.measure import objects_of

    labels, scores = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)
    return objects_of(labels, scores, Box(0, 0, 1, 1), mpp, measurements, np.full((1, 1, 3), 255, np.uint8))


@contextmanager
def _enough_threads(predictor: PatchPredictor) -> Iterator[None]:
    """Let PyTorch compute as it does under ``nuclix run`` (see `use_threads`); then restore its setting."""
    from nuclix.engine.inference.device import use_threads
    from nuclix.engine.inference.predictor import Predictor

    if not isinstance(predictor, Predictor):  # it does not compute in PyTorch, which need not be imported
        yield
        return
    import torch

    before = torch.get_num_threads()
    use_threads(before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ignore(_: Progress) -> None:
    """Take no notice of progress."""


def _never() -> bool:
    return False
