"""One slide, from its file to its result and record; what a worker does."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine import registry
from nuclix.engine.contracts import PostProcessor, SlideHeader, SlideReader, Writer
from nuclix.engine.errors import ModelError, OutputError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.measure import shape_names
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.pipeline import PipelineFigures, SlidePipeline, Stages, Watch
from nuclix.engine.record import SlideRecord, settings_as_json, write_record
from nuclix.engine.report.density import NucleiTally, SlideSketch, sketch_path, write_sketch
from nuclix.engine.report.thumbnail import thumbnail, write_thumbnail
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import SlideView, fingerprint, open_slide, slide_scale
from nuclix.engine.spool import Spool
from nuclix.engine.tiles import TileGrid
from nuclix.engine.tissue import read_overview, tissue_mask

if TYPE_CHECKING:
    from nuclix.engine.inference import Predictor
    from nuclix.engine.model import LoadedModel


@dataclass(frozen=True, slots=True)
class Tools:
    """What all slides of a worker share: made once, for it costs seconds.

    Attributes
    ----------
    settings : RunSettings
        What to do.
    model, predictor : LoadedModel, Predictor
        The network and what runs it.
    post : PostProcessor
        From maps to nuclei.
    writer : Writer
        From objects to a file.
    started : float
        When the run began, in seconds since 1970.
    """

    settings: RunSettings
    model: LoadedModel
    predictor: Predictor
    post: PostProcessor
    writer: Writer
    started: float


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


def make_tools(settings: RunSettings, started: float) -> Tools:
    """Load model, post-processor and writer.

    Parameters
    ----------
    settings : RunSettings
        What to do.
    started : float
        When the run began, in seconds since 1970.

    Raises
    ------
    ModelError, PluginError, UsageError
        If the model, a plugin or the device can't be used.
    """
    from nuclix.engine.device import choose_device, choose_precision
    from nuclix.engine.inference import InferenceSettings, Predictor, default_batch
    from nuclix.engine.model import find_model, load_model

    path = find_model(settings.model)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    model = load_model(path, str(device))
    card = model.card
    kind = registry.load(registry.POSTPROCESSORS, card.postprocessor)
    post: PostProcessor = from_mapping(kind, card.parameters, f"{path}: parameters of {card.postprocessor}")
    if post.maps != card.maps:
        raise ModelError(
            f"{path}: gives the maps {card.maps}, its post-processor {card.postprocessor} takes {post.maps}"
        )
    writer: Writer = registry.load(registry.WRITERS, settings.writer)()
    predictor = Predictor(model, InferenceSettings(device, precision, settings.batch or default_batch(device)))
    return Tools(settings, model, predictor, post, writer, started)


def run_slide(job: SlideJob, tools: Tools, watch: Watch) -> SlideOutcome:
    """Find the nuclei of one slide; its spool stays until `spool_folder` is removed by whoever keeps the ledger.

    Parameters
    ----------
    job : SlideJob
        The slide.
    tools : Tools
        Model and plugins.
    watch : Watch
        Is told how it goes, and may stop it.

    Returns
    -------
    SlideOutcome

    Raises
    ------
    NuclixError
        If the slide can't be read, the model fails, or the result can't be written.
    Interrupted
        If `watch` said stop; what is committed stays.
    """
    begun = time.perf_counter()
    reader = open_slide(job.path)
    try:
        view = SlideView(reader, tools.model.card.scale, slide_scale(reader.info, tools.settings.mpp))
        mark = fingerprint(job.path)
        path = _target(tools.settings.out, job, tools.writer.suffix)
        figures, extra = _work(job, tools, watch, view, mark)
    finally:
        reader.close()
    record = _record(reader, view, mark, tools)
    record.counts = {
        "tiles": figures.tiles,
        "tiles_total": figures.tiles_total,
        "pixels": figures.pixels,
        "nuclei": figures.nuclei,
        "rows_resumed": figures.rows_resumed,
        "pixels_resumed": figures.pixels_resumed,
        **extra,
    }
    record.seconds = {"wall": time.perf_counter() - begun, **figures.seconds}
    if figures.first_tile_at is not None:
        record.seconds = {"start_to_first_tile": figures.first_tile_at - tools.started, **record.seconds}
    if figures.clumps_cut:
        record.warnings.append(
            f"clumps of foreground larger than the limit were cut {figures.clumps_cut} times at block edges; "
            "the model may not suit this slide"
        )
    write_record(_target(tools.settings.out, job, ".json"), record)
    output = path.relative_to(tools.settings.out).as_posix()
    return SlideOutcome(output, checksum(path), record)


def checksum(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spool_folder(out: Path, job: SlideJob) -> Path:
    """Return where a slide's unfinished work lies."""
    return _target(out, SlideJob(job.path, job.name.with_name(f".{job.name.name}")), ".spool")


def _target(out: Path, job: SlideJob, suffix: str) -> Path:
    path = out / Path(job.name)
    return path.with_name(path.name + suffix)


def _work(
    job: SlideJob, tools: Tools, watch: Watch, view: SlideView, mark: str
) -> tuple[PipelineFigures, dict[str, float]]:
    """Run the pipeline into a spool, and the spool into the slide's file."""
    settings = tools.settings
    started = time.perf_counter()
    overview = read_overview(view.reader, view) if settings.tissue else None
    tissue = tissue_mask(view.reader, view, overview) if settings.tissue else None
    tissue_seconds = time.perf_counter() - started
    write_thumbnail(sketch_path(settings.out, str(job.name), ".jpg"), thumbnail(view.reader, overview))
    thumbnail_seconds = time.perf_counter() - started - tissue_seconds
    del overview
    grid = TileGrid(view.height, view.width, tools.model.card.patch, settings.block)
    path = _target(settings.out, job, tools.writer.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: can't be made: {error.strerror}") from error
    spool = Spool(spool_folder(settings.out, job), shape_names(view.scale.um_per_px), _spool_key(mark, view, tools))
    try:
        stages = Stages(view, tissue, tools.predictor, tools.post, spool)
        figures = SlidePipeline(stages, grid, settings.workers, watch).run()
        started = time.perf_counter()
        sketch = _write(path, view, mark, tools, spool)
        write_sketch(sketch_path(settings.out, str(job.name), ".npz"), sketch)
        figures.seconds = {
            "tissue": tissue_seconds,
            "thumbnail": thumbnail_seconds,
            **figures.seconds,
            "write": time.perf_counter() - started,
        }
    finally:
        spool.close()
    return figures, {} if tissue is None else {"tissue_mm2": tissue.area_mm2}


def _spool_key(mark: str, view: SlideView, tools: Tools) -> str:
    """Return what a spool's content depends on: only a run that agrees in all of it may go on with it."""
    settings = tools.settings
    facts = {
        "nuclix": version("nuclix"),
        "slide": mark,
        "model": tools.model.sha256,
        "parameters": dict(as_mapping(tools.post)),
        "um_per_px": view.scale.um_per_px,
        "block": settings.block,
        "tissue": settings.tissue,
        "device": str(tools.predictor.device),
        "precision": str(tools.predictor.precision),
        "batch": tools.predictor.batch,
    }
    return json.dumps(facts, sort_keys=True)


def _write(path: Path, view: SlideView, mark: str, tools: Tools, spool: Spool) -> SlideSketch:
    """Write the spool's objects in canonical order; the file gets its final name when it is complete."""
    bounds = view.info.bounds
    header = SlideHeader(
        name=view.info.path.name,
        pixel=view.pixel,
        origin=(float(bounds.row), float(bounds.col)) if bounds else (0.0, 0.0),
        classes=tools.model.card.classes,
        namespace=f"{mark}/{tools.model.sha256}",
    )
    session = tools.writer.open(path, header)
    tally = NucleiTally(view)
    try:
        for objects in spool.blocks():
            session.write(objects)
            tally.add(objects)
        session.commit()
    except BaseException:
        session.abort()
        raise
    return tally.sketch()


def _record(reader: SlideReader, view: SlideView, mark: str, tools: Tools) -> SlideRecord:
    info, card = reader.info, tools.model.card
    return SlideRecord(
        slide={
            "path": str(info.path),
            "fingerprint": mark,
            "vendor": info.vendor,
            "height": info.levels[0].height,
            "width": info.levels[0].width,
            "um_per_px": view.scale.um_per_px / view.pixel,
            "bounds": asdict(info.bounds) if info.bounds else None,
            "model_pixel": view.pixel,
        },
        model={
            "name": card.name,
            "sha256": tools.model.sha256,
            "postprocessor": card.postprocessor,
            "parameters": dict(as_mapping(tools.post)),
        },
        settings=settings_as_json(tools.settings),
    )
