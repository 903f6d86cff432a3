"""Segment one slide, from its file to its result and record."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nuclix.engine import registry
from nuclix.engine.contracts import ObjectClass, PostProcessor, SlideHeader, Writer
from nuclix.engine.errors import DeviceMemoryError, ModelError, OutputError, SlideError
from nuclix.engine.files import checksum
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.run_config import RunConfig, config_as_json
from nuclix.engine.segmentation.checkpoint import Checkpoint, committed_key
from nuclix.engine.segmentation.classes import Classes, prepare_classes
from nuclix.engine.segmentation.measure import MeasurementSettings, measurement_names, measurement_settings
from nuclix.engine.segmentation.pipeline import PipelineFigures, PipelineInputs, Progress, RunHooks, SlidePipeline
from nuclix.engine.segmentation.record import SlideRecord, write_record
from nuclix.engine.segmentation.result_key import RESULT_FORMAT, result_key
from nuclix.engine.segmentation.summary import SummaryAccumulator, write_summary
from nuclix.engine.slide.damage import DamageTolerant, damage_of, damage_warnings
from nuclix.engine.slide.identity import ContentHash, SlideState, slide_state
from nuclix.engine.slide.open import fingerprint, open_slide
from nuclix.engine.slide.scale import SlideScale, UserScale, configured_scale, resolve_scale
from nuclix.engine.slide.thumbnail import thumbnail, write_thumbnail
from nuclix.engine.slide.tissue import read_overview, tissue_mask
from nuclix.engine.slide.view import SlideView

if TYPE_CHECKING:
    from nuclix.engine.inference.model_file import LoadedModel
    from nuclix.engine.inference.predictor import Predictor


@dataclass(frozen=True, slots=True)
class SlidePaths:
    """The files of one slide.

    Attributes
    ----------
    slide : Path
        The slide itself.
    out : Path
        The output folder, which must exist.
    stem : Path
        Path of the results without their suffixes.
    record : Path
        The record.
    checkpoint : Path
        Folder of the committed objects of a slide in progress.
    thumbnail, summary : Path
        For the report.
    """

    slide: Path
    out: Path
    stem: Path
    record: Path
    checkpoint: Path
    thumbnail: Path
    summary: Path

    def result(self, suffix: str) -> Path:
        """Return the path of the result with a writer's suffix."""
        return self.stem.with_name(self.stem.name + suffix)


@dataclass(slots=True)
class SegmentationContext:
    """Model and plugins that all slides of a worker share: loading them takes seconds.

    Attributes
    ----------
    config : RunConfig
        The options of the run.
    model, predictor : LoadedModel, Predictor
        The network, and the device that runs it.
    post : PostProcessor
        From maps to nuclei.
    writer : Writer
        From objects to a file.
    measurements : MeasurementSettings
        How nuclei are outlined and what is measured.
    started : float
        Start of the run in seconds since 1970.
    classes : Classes
        How class maps are read, and what becomes of the model's classes.
    first : bool
        Whether no tile has been computed yet.
    """

    config: RunConfig
    model: LoadedModel
    predictor: Predictor
    post: PostProcessor
    writer: Writer
    measurements: MeasurementSettings
    started: float
    classes: Classes
    first: bool = True


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """A finished slide, as the ledger keeps it.

    Attributes
    ----------
    output, checksum : str
        The result's path in the output folder, and its SHA-256.
    record : SlideRecord
        The record that stands beside it.
    """

    output: str
    checksum: str
    record: SlideRecord


def make_context(config: RunConfig, started: float) -> SegmentationContext:
    """Load model, post-processor and writer.

    Parameters
    ----------
    config : RunConfig
        The options of the run.
    started : float
        Start of the run in seconds since 1970.

    Raises
    ------
    ModelError, PluginError, UsageError
        If the model, a plugin or the device can't be used.
    """
    from nuclix.engine.inference.device import choose_device, choose_precision
    from nuclix.engine.inference.model_file import find_model, load_model
    from nuclix.engine.inference.predictor import InferenceSettings, Predictor, default_batch

    measurements = measurement_settings(config)
    path = find_model(config.model)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    model = load_model(path, str(device))
    card = model.card
    kind: Any = registry.load(registry.POSTPROCESSORS, card.postprocessor)
    post: PostProcessor = from_mapping(kind, card.parameters, f"{path}: parameters of {card.postprocessor}")
    if post.maps != card.maps:
        raise ModelError(
            f"{path}: gives the maps {card.maps}, its post-processor {card.postprocessor} takes {post.maps}"
        )
    classes = prepare_classes(card, post, config, str(path))
    make_writer: Any = registry.load(registry.WRITERS, config.writer)
    writer: Writer = make_writer()
    batch = config.batch or default_batch(device)
    predictor = Predictor(model, InferenceSettings(device, precision, batch, config.tta))
    return SegmentationContext(config, model, predictor, post, writer, measurements, started, classes)


@dataclass(frozen=True, slots=True)
class _SlideContext:
    """One slide in progress."""

    paths: SlidePaths
    shared: SegmentationContext
    hooks: RunHooks
    view: SlideView
    fingerprint: str
    state: SlideState
    scale: SlideScale

    @property
    def result(self) -> Path:
        """Path of the result."""
        return self.paths.result(self.shared.writer.suffix)


def segment_slide(
    paths: SlidePaths, context: SegmentationContext, hooks: RunHooks, user_scale: UserScale | None = None
) -> SlideOutcome:
    """Segment the nuclei of one slide; its checkpoint stays until the caller has recorded the result.

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
        If the slide can't be read or changes meanwhile, the model fails, or the result can't be written.
    Interrupted
        If the hooks asked to stop, or another worker has taken the slide over; what is committed stays.
    """
    started = time.perf_counter()
    state = slide_state(paths.slide)
    content = ContentHash(paths.slide)
    reader = open_slide(paths.slide, context.config.reader)
    try:
        if isinstance(reader, DamageTolerant):
            reader.tolerate_damage(context.config.tolerate_damage)
        scale = resolve_scale(reader.info, user_scale or configured_scale(context.config))
        view = SlideView(reader, context.model.card.scale, scale.scale)
        slide = _SlideContext(paths, context, hooks, view, fingerprint(paths.slide), state, scale)
        figures, extra = _retry_with_smaller_batch(slide)
        digest = content.result(lambda: _heartbeat(figures, hooks))
    finally:
        content.cancel()
        reader.close()
    _check_unchanged(slide)
    record = _record(slide)
    record.counts = {
        "tiles": figures.tiles,
        "tiles_total": figures.tiles_total,
        "pixels": figures.pixels,
        "nuclei": figures.nuclei,
        "rows_resumed": figures.rows_resumed,
        "pixels_resumed": figures.pixels_resumed,
        **extra,
    }
    record.seconds = {"wall": time.perf_counter() - started, **figures.seconds}
    if figures.first_tile_at is not None and context.first:
        context.first = False
        record.seconds = {"start_to_first_tile": figures.first_tile_at - context.started, **record.seconds}
    record.warnings = [*scale.warnings, *damage_warnings(damage_of(reader)), *_warnings(figures, context)]
    record.result = _result(slide, digest)
    try:
        write_record(paths.record, record)
    except OSError as error:
        raise OutputError(f"{paths.record}: can't be written: {error.strerror}") from error
    return SlideOutcome(record.result["output"], record.result["checksum"], record)


def _check_unchanged(slide: _SlideContext) -> None:
    """Raise `SlideError` if the slide's file is not the one that processing started with."""
    path = slide.paths.slide
    if slide_state(path) != slide.state:
        raise SlideError(f"{path}: was changed while it was being processed; run the same command again")


def _heartbeat(figures: PipelineFigures, hooks: RunHooks) -> None:
    """Report that the slide is alive while its hash is computed."""
    hooks.on_progress(Progress(figures.tiles, figures.tiles_total, figures.pixels, figures.nuclei, figures.rows))


def _result(slide: _SlideContext, digest: str) -> dict[str, Any]:
    """Return what identifies the result: its bytes, and what it was made from."""
    user_mpp = slide.scale.scale.mpp if slide.scale.from_user else None
    return {
        "output": slide.result.relative_to(slide.paths.out).as_posix(),
        "checksum": checksum(slide.result),
        "key": result_key(slide.fingerprint, slide.shared.model.sha256, slide.shared.config, user_mpp),
        "slide_state": slide.state.text,
        "content": digest,
    }


def _retry_with_smaller_batch(slide: _SlideContext) -> tuple[PipelineFigures, dict[str, Any]]:
    """Segment the slide; where the device is out of memory, restart the slide with half the batch size.

    It is restarted because rows of two batch sizes in one result would depend on when memory was short.
    """
    predictor = slide.shared.predictor
    committed = committed_key(slide.paths.checkpoint)
    smaller = [predictor.batch >> halvings for halvings in range(predictor.batch.bit_length())]
    earlier = next((batch for batch in smaller if _checkpoint_key(slide, batch) == committed), predictor.batch)
    if earlier < predictor.batch:
        predictor.use_batch(earlier)  # an attempt before this one had to make do with it
    while True:
        try:
            return _segment(slide)
        except DeviceMemoryError as error:
            if predictor.batch == 1:
                raise ModelError(
                    f"{slide.paths.slide}: {error}; end what else uses it, or take a model of smaller patches"
                ) from error
        # Outside the handler, for the exception's traceback holds on to the tensors.
        predictor.use_batch(predictor.batch // 2)


def _segment(slide: _SlideContext) -> tuple[PipelineFigures, dict[str, Any]]:
    """Run the pipeline into the checkpoint, and write the result from it."""
    shared, config, view = slide.shared, slide.shared.config, slide.view
    started = time.perf_counter()
    overview = read_overview(view.reader, view) if config.tissue else None
    tissue = tissue_mask(view.reader, view, overview) if config.tissue else None
    tissue_seconds = time.perf_counter() - started
    _make_folder(slide.paths.out, slide.paths.thumbnail.parent)
    write_thumbnail(slide.paths.thumbnail, thumbnail(view.reader, overview))
    thumbnail_seconds = time.perf_counter() - started - tissue_seconds
    del overview
    grid = TileGrid(view.height, view.width, shared.model.card.patch, config.block)
    _make_folder(slide.paths.out, slide.paths.checkpoint.parent)
    key = _checkpoint_key(slide, shared.predictor.batch)
    names = measurement_names(view.scale.mpp, shared.measurements)
    checkpoint = Checkpoint(slide.paths.checkpoint, names, key)
    try:
        inputs = PipelineInputs(
            view, tissue, shared.predictor, shared.post, checkpoint, shared.classes.rule, shared.measurements
        )
        figures = SlidePipeline(inputs, grid, config.threads, slide.hooks).run()
        started = time.perf_counter()
        by_class = _write(slide, checkpoint, figures)
        spent = {"tissue": tissue_seconds, "thumbnail": thumbnail_seconds}
        figures.seconds = {**spent, **figures.seconds, "write": time.perf_counter() - started}
    finally:
        checkpoint.close()
    return figures, {"nuclei_by_class": by_class} | ({} if tissue is None else {"tissue_mm2": tissue.area_mm2})


def _make_folder(out: Path, folder: Path) -> None:
    """Make a sub-folder of the output folder, which itself must be there: one that has vanished stays away."""
    try:
        out.stat()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be written: {error.strerror}") from error


def _checkpoint_key(slide: _SlideContext, batch: int) -> str:
    """Return what a checkpoint depends on: only a run that agrees in all of it may resume from it."""
    import torch

    from nuclix.engine.inference.device import hardware_name

    shared, config = slide.shared, slide.shared.config
    facts = {
        "format": RESULT_FORMAT,
        "nuclix": version("nuclix"),
        "torch": torch.__version__,
        "slide": slide.fingerprint,
        "slide_state": slide.state.text,
        "reader": type(slide.view.reader).__name__,
        "model": shared.model.sha256,
        "parameters": dict(as_mapping(shared.post)),
        "mpp": slide.view.scale.mpp,
        "block": config.block,
        "tissue": config.tissue,
        "measurements": as_mapping(shared.measurements),
        "device": hardware_name(shared.predictor.device),
        "precision": str(shared.predictor.precision),
        "tta": shared.predictor.tta,
        "batch": batch,
    }
    return json.dumps(facts, sort_keys=True)


def slide_header(
    view: SlideView, classes: tuple[ObjectClass, ...], model: LoadedModel, fingerprint: str
) -> SlideHeader:
    """Return what a writer must know of a slide, whose file has the given fingerprint."""
    bounds = view.info.bounds
    return SlideHeader(
        name=view.info.path.name,
        downsample=view.downsample,
        origin=(float(bounds.row), float(bounds.col)) if bounds else (0.0, 0.0),
        classes=classes,
        namespace=f"{fingerprint}/{model.sha256}",
    )


def _write(slide: _SlideContext, checkpoint: Checkpoint, figures: PipelineFigures) -> dict[str, int]:
    """Write the checkpoint's objects in canonical order, and return how many there are of each class."""
    shared, view = slide.shared, slide.view
    header = slide_header(view, shared.classes.mapping.classes, shared.model, slide.fingerprint)
    end = Progress(figures.tiles, figures.tiles_total, figures.pixels, figures.nuclei, figures.rows)
    summary = SummaryAccumulator(view)
    mapping, by_class = shared.classes.mapping, np.zeros(len(header.classes), np.int64)
    session = shared.writer.open(slide.result, header)
    try:
        for block in checkpoint.blocks():
            objects = mapping.apply(block)
            by_class += np.bincount(objects.classes, minlength=len(by_class))
            session.write(objects)
            summary.add(objects)
            slide.hooks.on_progress(end)
        checkpoint.check()
        _check_unchanged(slide)
        session.commit()
    except BaseException:
        session.abort()
        raise
    write_summary(slide.paths.summary, summary.result())
    return mapping.named(by_class)


def _warnings(figures: PipelineFigures, context: SegmentationContext) -> list[str]:
    """Return what the user should know of a finished slide."""
    warnings = []
    if figures.clumps_cut:
        warnings.append(
            f"clumps of foreground larger than the limit were cut {figures.clumps_cut} times at block edges; "
            "the model may not suit this slide"
        )
    batch, asked = context.predictor.batch, context.predictor.asked
    if batch < asked:
        warnings.append(
            f"the device was out of memory with {asked} patches at a time: computed as with --batch {batch}"
        )
    return warnings


def _record(slide: _SlideContext) -> SlideRecord:
    from nuclix.engine.inference.device import hardware_name

    info, view, shared = slide.view.info, slide.view, slide.shared
    predictor = shared.predictor
    return SlideRecord(
        slide={
            "path": str(info.path),
            "fingerprint": slide.fingerprint,
            "vendor": info.vendor,
            "reader": type(view.reader).__name__,
            "height": info.levels[0].height,
            "width": info.levels[0].width,
            "mpp": view.scale.mpp / view.downsample,
            "mpp_source": slide.scale.source,
            "mpp_stated": slide.scale.stated,
            "bounds": asdict(info.bounds) if info.bounds else None,
            "model_downsample": view.downsample,
            "damage": asdict(damage_of(view.reader)),
        },
        model={
            "name": shared.model.card.name,
            "sha256": shared.model.sha256,
            "postprocessor": shared.model.card.postprocessor,
            "parameters": dict(as_mapping(shared.post)),
            "classes": [as_mapping(item) for item in shared.classes.mapping.classes],
            "device": f"{predictor.device} ({hardware_name(predictor.device)})",
            "precision": str(predictor.precision).removeprefix("torch."),
            "tta": predictor.tta,
            "batch": predictor.batch,
        },
        settings=config_as_json(shared.config),
    )
