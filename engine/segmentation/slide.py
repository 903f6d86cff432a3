"""Segment one slide, from its file to its result and record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nuclix.engine.contracts import PostProcessor
from nuclix.engine.errors import DeviceMemoryError, Interrupted, ModelError, OutputError
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.checkpoint import committed_key
from nuclix.engine.segmentation.classes import Classes, prepare_classes
from nuclix.engine.segmentation.computation import checkpoint_key, compute_objects
from nuclix.engine.segmentation.hooks import Progress, RunHooks
from nuclix.engine.segmentation.measure import MeasurementSettings, measurement_settings
from nuclix.engine.segmentation.outputs import (
    WritersByFormat,
    chosen_formats,
    load_writers,
    merged_outputs,
    output_files,
    write_outputs,
)
from nuclix.engine.segmentation.preparation import open_network, post_processor, try_network
from nuclix.engine.segmentation.record import SlideRecord, read_record, write_record
from nuclix.engine.segmentation.regions import ViewRegions, regions_of, side_file_hashes
from nuclix.engine.segmentation.result_key import CLASS_MAP, objects_key, result_key, with_class_map
from nuclix.engine.segmentation.slide_files import SlideOutcome, SlidePaths
from nuclix.engine.segmentation.store import ObjectStore, open_store
from nuclix.engine.segmentation.written_classes import mapped_record
from nuclix.engine.slide.colour import managed
from nuclix.engine.slide.damage import DamageTolerant
from nuclix.engine.slide.identity import ContentHash, SlideState, slide_state
from nuclix.engine.slide.open import fingerprint, open_slide
from nuclix.engine.slide.scale import SlideScale, UserScale, check_upsampling, configured_scale, resolve_scale
from nuclix.engine.slide.view import SlideView

if TYPE_CHECKING:
    from nuclix.engine.inference.model_file import LoadedModel
    from nuclix.engine.inference.patch_predictor import PatchPredictor


@dataclass(slots=True)
class SegmentationContext:
    """Model and plugins that all slides of a worker share: loading them takes seconds.

    Attributes
    ----------
    config : RunConfig
        The options of the run.
    model, predictor : LoadedModel, PatchPredictor
        The network, and the device that runs it.
    post : PostProcessor
        From maps to nuclei.
    writers : mapping of str to Writer
        From objects to files, by format.
    measurements : MeasurementSettings
        How nuclei are outlined and what is measured.
    started : float
        Start of the run in seconds since 1970.
    classes : Classes
        How class maps are read, and what becomes of the model's classes.
    notes : tuple of str
        Warnings about the model, for each record.
    first : bool
        Whether no tile has been computed yet.
    """

    config: RunConfig
    model: LoadedModel
    predictor: PatchPredictor
    post: PostProcessor
    writers: WritersByFormat
    measurements: MeasurementSettings
    started: float
    classes: Classes
    notes: tuple[str, ...] = ()
    first: bool = True


def make_context(config: RunConfig, started: float, threads: int | None = None) -> SegmentationContext:
    """Load model, post-processor and writers.

    Parameters
    ----------
    config : RunConfig
        The options of the run.
    started : float
        Start of the run in seconds since 1970.
    threads : int, optional
        Of the CPU, for the network; by default those that this process may use, and of PyTorch what it is set to.

    Raises
    ------
    ModelError, PluginError, UsageError
        If the model or a plugin can't be used, or the device does not exist.
    DeviceError, DeviceMemoryError
        If the device can't be used now.
    """
    from nuclix.engine.inference.model_file import find_model

    measurements = measurement_settings(config)
    path = find_model(config.model)
    opened = open_network(path, config, threads)
    model = opened.model
    post = post_processor(model.card, config, str(path))
    classes = prepare_classes(model.card, post, config, str(path))
    writers = load_writers(config.format)
    notes = try_network(opened.predictor, config)
    return SegmentationContext(config, model, opened.predictor, post, writers, measurements, started, classes, notes)


@dataclass(frozen=True, slots=True)
class SlideContext:
    """One slide in progress.

    Attributes
    ----------
    paths : SlidePaths
        Its files.
    shared : SegmentationContext
        Model and plugins.
    hooks : RunHooks
        Callbacks.
    view : SlideView
        The slide at the model's scale.
    fingerprint, key : str
        Its fingerprint, and what its objects depend on.
    started : float
        When this attempt started, by `time.perf_counter`.
    state : SlideState
        Sizes and modification times of the slide's files when this attempt started.
    scale : SlideScale
        The scale that is used, and where it comes from.
    content : ContentHash
        The digest of the slide's bytes, computed meanwhile.
    regions : ViewRegions or None
        What the run is limited to.
    """

    paths: SlidePaths
    shared: SegmentationContext
    hooks: RunHooks
    view: SlideView
    fingerprint: str
    key: str
    started: float
    state: SlideState
    scale: SlideScale
    content: ContentHash
    regions: ViewRegions | None = None

    def stop_if_asked(self) -> None:
        """Raise `Interrupted` if the run is to stop."""
        if self.hooks.should_stop():
            raise Interrupted(f"{self.paths.slide}: stopped on request")


def segment_slide(
    paths: SlidePaths, context: SegmentationContext, hooks: RunHooks, user_scale: UserScale | None = None
) -> SlideOutcome:
    """Segment the nuclei of one slide; its checkpoint stays until the caller has recorded the result.

    Where its objects are stored already, only the files of the formats that are asked for are written.

    Parameters
    ----------
    paths : SlidePaths
        The slide, and where its files go.
    context : SegmentationContext
        Model and plugins.
    hooks : RunHooks
        Receive progress, and may stop the slide.
    user_scale : UserScale, optional
        What the user says of the slide's scale; by default what the options of the run say.

    Returns
    -------
    SlideOutcome

    Raises
    ------
    NuclixError
        If the slide can't be read, the model fails, or the result can't be written.
    Interrupted
        If the hooks asked to stop, or another worker has taken the slide over; what is committed stays.
    """
    user = user_scale or configured_scale(context.config)
    store = _stored_objects(paths, context, user)
    computed = store is None
    if store is None:
        _compute(paths, context, hooks, user)
        store = ObjectStore(paths.objects)
    with store:
        return _write_results(paths, context, store, hooks, computed=computed)


def _stored_objects(paths: SlidePaths, context: SegmentationContext, user: UserScale) -> ObjectStore | None:
    """Return the stored objects of the slide that this run would compute, if they are there."""
    mark, files = fingerprint(paths.slide), side_file_hashes(context.config, paths.slide)
    for mpp in (user.mpp,) if user.overrules else dict.fromkeys((None, user.mpp)):
        key = result_key(mark, context.model.sha256, context.config, mpp, files)
        store = open_store(paths.objects, objects_key(key))
        if store is not None:
            if store.slide.record.get("result", {}).get("slide_state") == slide_state(paths.slide).text:
                return store
            store.close()
    return None


def _compute(paths: SlidePaths, context: SegmentationContext, hooks: RunHooks, user: UserScale) -> None:
    """Segment a slide and store its objects."""
    started, state, config = time.perf_counter(), slide_state(paths.slide), context.config
    reader = open_slide(paths.slide, config.reader)
    content = ContentHash(paths.slide, reader, full=config.full_hash)
    try:
        if isinstance(reader, DamageTolerant):
            reader.tolerate_damage(config.tolerate_damage)
        if config.icc:
            reader = managed(reader)
        scale = resolve_scale(reader.info, user)
        check_upsampling(reader.info, scale.scale, context.model.card.scale, config)
        regions = regions_of(config, paths.slide)
        view = SlideView(reader, context.model.card.scale, scale.scale)
        mark = fingerprint(paths.slide)
        used = scale.scale.mpp if scale.from_user else None
        key = result_key(mark, context.model.sha256, config, used, side_file_hashes(config, paths.slide))
        limits = ViewRegions.of(regions, view) if regions else None
        slide = SlideContext(paths, context, hooks, view, mark, key, started, state, scale, content, limits)
        _retry_with_smaller_batch(slide)
    finally:
        content.cancel()
        reader.close()


def _write_results(
    paths: SlidePaths, context: SegmentationContext, store: ObjectStore, hooks: RunHooks, *, computed: bool
) -> SlideOutcome:
    """Write a slide's files in all formats from its stored objects, then its record."""
    config, writers = context.config, context.writers
    started = time.perf_counter()
    mapping = context.classes.mapping
    record = mapped_record(SlideRecord(**store.slide.record), store.slide.header.classes, mapping)
    record.result = {**record.result, "key": with_class_map(str(record.result["key"]), config)}
    record.settings = {**record.settings, CLASS_MAP: config.class_map}
    counts = record.counts
    end = Progress(counts["tiles"], counts["tiles_total"], counts["pixels"], counts["nuclei"], counts["rows"])
    targets = {name: paths.result(writers[name].suffix) for name in chosen_formats(config.format, len(store))}
    annotations = config.tissue_annotations
    write_outputs(store, targets, writers, mapping, annotations=annotations, on_block=lambda: hooks.on_progress(end))
    written = output_files(targets, paths.out, annotations=annotations)
    before = None if computed else read_record(paths.record)
    record.outputs = merged_outputs(before.outputs if before else (), written)
    if computed:
        spent = time.perf_counter() - started
        seconds = record.seconds
        record.seconds = {**seconds, "wall": seconds["wall"] + spent, "write": seconds["write"] + spent}
    try:
        write_record(paths.record, record)
    except OSError as error:
        raise OutputError(f"{paths.record}: can't be written: {error.strerror}") from error
    return SlideOutcome(str(written[0]["path"]), str(written[0]["sha256"]), record)


def _retry_with_smaller_batch(slide: SlideContext) -> None:
    """Segment the slide; where the device is out of memory, restart the slide with half the batch size.

    It is restarted because rows of two batch sizes in one result would depend on when memory was short.
    """
    predictor = slide.shared.predictor
    predictor.use_batch(predictor.asked)  # memory that was short for an earlier slide may be there again
    committed = committed_key(slide.paths.checkpoint)
    smaller = [predictor.batch >> halvings for halvings in range(predictor.batch.bit_length())]
    earlier = next((batch for batch in smaller if checkpoint_key(slide, batch) == committed), predictor.batch)
    if earlier < predictor.batch:
        predictor.use_batch(earlier)  # an attempt before this one had to make do with it
    while True:
        try:
            compute_objects(slide)
            return
        except DeviceMemoryError as error:
            if predictor.batch == 1:
                raise ModelError(
                    f"{slide.paths.slide}: {error}; end what else uses it, or take a model of smaller patches"
                ) from error
        # Outside the handler, for the exception's traceback holds on to the tensors.
        predictor.use_batch(predictor.batch // 2)
