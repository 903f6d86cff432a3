"""One slide, from its file to its result and record; what a worker does."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine import registry
from nuclix.engine.contracts import PostProcessor, SlideHeader, Writer
from nuclix.engine.errors import DeviceMemoryError, ModelError, OutputError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.measure import shape_names
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.pipeline import PipelineFigures, Progress, SlidePipeline, Stages, Watch
from nuclix.engine.record import SlideRecord, settings_as_json, write_record
from nuclix.engine.report.density import NucleiTally, sketch_path, write_sketch
from nuclix.engine.report.thumbnail import thumbnail, write_thumbnail
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import SlideView, fingerprint, open_slide, slide_scale
from nuclix.engine.spool import Spool, committed_key
from nuclix.engine.tiles import TileGrid
from nuclix.engine.tissue import read_overview, tissue_mask

if TYPE_CHECKING:
    from nuclix.engine.inference import Predictor
    from nuclix.engine.model import LoadedModel


@dataclass(slots=True)
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
    first : bool
        Whether no tile has been computed yet.
    """

    settings: RunSettings
    model: LoadedModel
    predictor: Predictor
    post: PostProcessor
    writer: Writer
    started: float
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
    kind: Any = registry.load(registry.POSTPROCESSORS, card.postprocessor)
    post: PostProcessor = from_mapping(kind, card.parameters, f"{path}: parameters of {card.postprocessor}")
    if post.maps != card.maps:
        raise ModelError(
            f"{path}: gives the maps {card.maps}, its post-processor {card.postprocessor} takes {post.maps}"
        )
    make_writer: Any = registry.load(registry.WRITERS, settings.writer)
    writer: Writer = make_writer()
    batch = settings.batch or default_batch(device)
    predictor = Predictor(model, InferenceSettings(device, precision, batch, settings.flips))
    return Tools(settings, model, predictor, post, writer, started)


@dataclass(frozen=True, slots=True)
class _Task:
    """A slide in work: what, with what, and who is told."""

    job: SlideJob
    tools: Tools
    watch: Watch
    view: SlideView
    mark: str

    def target(self, suffix: str) -> Path:
        """Return the slide's file of this ending in the output folder."""
        return target(self.tools.settings.out, self.job, suffix)


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
        If `watch` said stop, or another worker has taken the slide over; what is committed stays.
    """
    begun = time.perf_counter()
    reader = open_slide(job.path)
    try:
        view = SlideView(reader, tools.model.card.scale, slide_scale(reader.info, tools.settings.mpp))
        task = _Task(job, tools, watch, view, fingerprint(job.path))
        figures, extra = _work_in_memory(task)
    finally:
        reader.close()
    record = _record(task)
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
    if figures.first_tile_at is not None and tools.first:
        tools.first = False
        record.seconds = {"start_to_first_tile": figures.first_tile_at - tools.started, **record.seconds}
    record.warnings = _warnings(figures, tools)
    try:
        write_record(task.target(".json"), record)
    except OSError as error:
        raise OutputError(f"{task.target('.json')}: can't be written: {error.strerror}") from error
    path = task.target(tools.writer.suffix)
    return SlideOutcome(path.relative_to(tools.settings.out).as_posix(), checksum(path), record)


def checksum(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def target(out: Path, job: SlideJob, suffix: str) -> Path:
    """Return a slide's file in the output folder, which may stand in a sub-folder of it."""
    path = out / Path(job.name)
    return path.with_name(path.name + suffix)


def spool_folder(out: Path, job: SlideJob) -> Path:
    """Return where a slide's unfinished work lies."""
    path = target(out, job, ".spool")
    return path.with_name(f".{path.name}")


def _work_in_memory(task: _Task) -> tuple[PipelineFigures, dict[str, float]]:
    """Do the work; where the device is out of memory, begin the slide anew with half the batch.

    Anew, for rows of two batches in one result would make it depend on when memory was short.
    """
    predictor = task.tools.predictor
    committed = committed_key(spool_folder(task.tools.settings.out, task.job))
    smaller = [predictor.batch >> halvings for halvings in range(predictor.batch.bit_length())]
    earlier = next((batch for batch in smaller if _spool_key(task, batch) == committed), predictor.batch)
    if earlier < predictor.batch:
        predictor.use_batch(earlier)  # an attempt before this one had to make do with it
    while True:
        try:
            return _work(task)
        except DeviceMemoryError as error:
            if predictor.batch == 1:
                raise ModelError(
                    f"{task.job.path}: {error}; end what else uses it, or take a model of smaller patches"
                ) from error
        # Outside the handler, for the exception's traceback holds on to the tensors.
        predictor.use_batch(predictor.batch // 2)


def _work(task: _Task) -> tuple[PipelineFigures, dict[str, float]]:
    """Run the pipeline into a spool, and the spool into the slide's file."""
    tools, settings, view = task.tools, task.tools.settings, task.view
    started = time.perf_counter()
    overview = read_overview(view.reader, view) if settings.tissue else None
    tissue = tissue_mask(view.reader, view, overview) if settings.tissue else None
    tissue_seconds = time.perf_counter() - started
    write_thumbnail(_for_report(task, ".jpg"), thumbnail(view.reader, overview))
    thumbnail_seconds = time.perf_counter() - started - tissue_seconds
    del overview
    grid = TileGrid(view.height, view.width, tools.model.card.patch, settings.block)
    folder = spool_folder(settings.out, task.job)
    _make_folder(settings.out, folder.parent)
    spool = Spool(folder, shape_names(view.scale.um_per_px), _spool_key(task, tools.predictor.batch))
    try:
        stages = Stages(view, tissue, tools.predictor, tools.post, spool)
        figures = SlidePipeline(stages, grid, settings.workers, task.watch).run()
        started = time.perf_counter()
        _write(task, spool, figures)
        spent = {"tissue": tissue_seconds, "thumbnail": thumbnail_seconds}
        figures.seconds = {**spent, **figures.seconds, "write": time.perf_counter() - started}
    finally:
        spool.close()
    return figures, {} if tissue is None else {"tissue_mm2": tissue.area_mm2}


def _make_folder(out: Path, folder: Path) -> None:
    """Make a sub-folder of the output folder, which itself must be there: one that has vanished stays away."""
    try:
        out.stat()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be written: {error.strerror}") from error


def _for_report(task: _Task, suffix: str) -> Path:
    """Return where the slide's picture or sketch is kept, in a folder that is there."""
    out = task.tools.settings.out
    path = sketch_path(out, str(task.job.name), suffix)
    _make_folder(out, path.parent)
    return path


def _spool_key(task: _Task, batch: int) -> str:
    """Return what a spool's content depends on: only a run that agrees in all of it may go on with it."""
    import torch

    from nuclix.engine.device import hardware_name

    tools, settings = task.tools, task.tools.settings
    facts = {
        "nuclix": version("nuclix"),
        "torch": torch.__version__,
        "slide": task.mark,
        "model": tools.model.sha256,
        "parameters": dict(as_mapping(tools.post)),
        "um_per_px": task.view.scale.um_per_px,
        "block": settings.block,
        "tissue": settings.tissue,
        "device": hardware_name(tools.predictor.device),
        "precision": str(tools.predictor.precision),
        "flips": tools.predictor.flips,
        "batch": batch,
    }
    return json.dumps(facts, sort_keys=True)


def _write(task: _Task, spool: Spool, figures: PipelineFigures) -> None:
    """Write the spool's objects in canonical order; the file gets its final name when it is complete."""
    tools, view = task.tools, task.view
    bounds = view.info.bounds
    header = SlideHeader(
        name=view.info.path.name,
        pixel=view.pixel,
        origin=(float(bounds.row), float(bounds.col)) if bounds else (0.0, 0.0),
        classes=tools.model.card.classes,
        namespace=f"{task.mark}/{tools.model.sha256}",
    )
    end = Progress(figures.tiles, figures.tiles_total, figures.pixels, figures.nuclei, figures.rows)
    tally = NucleiTally(view)
    session = tools.writer.open(task.target(tools.writer.suffix), header)
    try:
        for objects in spool.blocks():
            session.write(objects)
            tally.add(objects)
            task.watch.listen(end)
        spool.check()
        session.commit()
    except BaseException:
        session.abort()
        raise
    write_sketch(_for_report(task, ".npz"), tally.sketch())


def _warnings(figures: PipelineFigures, tools: Tools) -> list[str]:
    """Return what the user should know of a finished slide."""
    warnings = []
    if figures.clumps_cut:
        warnings.append(
            f"clumps of foreground larger than the limit were cut {figures.clumps_cut} times at block edges; "
            "the model may not suit this slide"
        )
    batch, asked = tools.predictor.batch, tools.predictor.asked
    if batch < asked:
        warnings.append(
            f"the device was out of memory with {asked} patches at a time: computed as with --batch {batch}"
        )
    return warnings


def _record(task: _Task) -> SlideRecord:
    from nuclix.engine.device import hardware_name

    info, view, tools = task.view.info, task.view, task.tools
    predictor = tools.predictor
    return SlideRecord(
        slide={
            "path": str(info.path),
            "fingerprint": task.mark,
            "vendor": info.vendor,
            "height": info.levels[0].height,
            "width": info.levels[0].width,
            "um_per_px": view.scale.um_per_px / view.pixel,
            "bounds": asdict(info.bounds) if info.bounds else None,
            "model_pixel": view.pixel,
        },
        model={
            "name": tools.model.card.name,
            "sha256": tools.model.sha256,
            "postprocessor": tools.model.card.postprocessor,
            "parameters": dict(as_mapping(tools.post)),
            "device": f"{predictor.device} ({hardware_name(predictor.device)})",
            "precision": str(predictor.precision).removeprefix("torch."),
            "flips": predictor.flips,
            "batch": predictor.batch,
        },
        settings=settings_as_json(tools.settings),
    )
