"""A batch of slides: each becomes one file of objects and one record; a slide that fails costs only itself."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nuclix.engine import registry
from nuclix.engine.contracts import PostProcessor, SlideHeader, SlideReader, Writer
from nuclix.engine.errors import ModelError, NuclixError, OutputError, UsageError
from nuclix.engine.inputs import SlideJob, find_slides
from nuclix.engine.measure import shape_names
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.pipeline import PipelineFigures, Progress, SlidePipeline, Stages
from nuclix.engine.record import SlideRecord, settings_as_json, write_record
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import SlideView, fingerprint, open_slide, slide_scale
from nuclix.engine.spool import Spool
from nuclix.engine.tiles import TileGrid
from nuclix.engine.tissue import tissue_mask

if TYPE_CHECKING:
    from nuclix.engine.inference import Predictor
    from nuclix.engine.model import LoadedModel

log = logging.getLogger("nuclix")


class RunListener(Protocol):
    """Is told how the run goes."""

    def slide_started(self, job: SlideJob, number: int, total: int) -> None:
        """Work on a slide begins."""
        ...

    def slide_progress(self, job: SlideJob, progress: Progress) -> None:
        """A batch of tiles is done."""
        ...

    def slide_done(self, job: SlideJob, record: SlideRecord) -> None:
        """The slide's file has its final name."""
        ...

    def slide_failed(self, job: SlideJob, message: str) -> None:
        """The slide has no result; the run goes on."""
        ...


@dataclass(slots=True)
class RunSummary:
    """Which slides are done, and which failed with what message."""

    done: dict[str, SlideRecord] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Tools:
    """What all slides of a run share."""

    settings: RunSettings
    model: LoadedModel
    predictor: Predictor
    post: PostProcessor
    writer: Writer
    started: float


def run(inputs: Sequence[str], settings: RunSettings, listener: RunListener) -> RunSummary:
    """Find the nuclei of every slide.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns.
    settings : RunSettings
        What to do.
    listener : RunListener
        Is told how it goes.

    Returns
    -------
    RunSummary

    Raises
    ------
    UsageError
        If nothing can be run: no input, an unknown model or device, an output folder that can't be written.
    """
    started = time.time()
    jobs = find_slides(inputs, settings.out)
    try:
        _prepare_folder(settings.out)
        tools = _tools(settings, started)
    except (ModelError, OutputError) as error:
        raise UsageError(str(error)) from error
    summary = RunSummary()
    for number, job in enumerate(jobs, 1):
        listener.slide_started(job, number, len(jobs))
        try:
            record = _run_slide(job, tools, listener)
        except NuclixError as error:
            _fail(job, str(error), summary, listener)
        except Exception as error:  # noqa: BLE001 (a plugin may raise anything; the other slides go on)
            _fail(job, f"{job.path}: unexpected {type(error).__name__}: {error} (traceback in run.log)", summary, listener)
        else:
            summary.done[str(job.name)] = record
            listener.slide_done(job, record)
    return summary


def _fail(job: SlideJob, message: str, summary: RunSummary, listener: RunListener) -> None:
    log.exception("%s failed: %s", job.path, message)
    summary.failed[str(job.name)] = message
    listener.slide_failed(job, message)


def _prepare_folder(out: Path) -> None:
    """Make the output folder and find out at once, not after hours, whether it can be written."""
    probe = out / ".nuclix-probe"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: the output folder can't be written: {error.strerror}") from error


def _tools(settings: RunSettings, started: float) -> _Tools:
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
        raise ModelError(f"{path}: gives the maps {card.maps}, its post-processor {card.postprocessor} takes {post.maps}")
    writer: Writer = registry.load(registry.WRITERS, settings.writer)()
    batch = settings.batch or default_batch(device)
    predictor = Predictor(model, InferenceSettings(device, precision, batch))
    return _Tools(settings, model, predictor, post, writer, started)


def _run_slide(job: SlideJob, tools: _Tools, listener: RunListener) -> SlideRecord:
    begun = time.perf_counter()
    reader = open_slide(job.path)
    try:
        mark = fingerprint(job.path)
        figures, view, extra = _work(job, tools, reader, mark, listener)
    finally:
        reader.close()
    record = _record(reader, view, mark, tools)
    record.counts = {
        "tiles": figures.tiles,
        "tiles_total": figures.tiles_total,
        "pixels": figures.pixels,
        "nuclei": figures.nuclei,
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
    target = _target(tools.settings.out, job)
    write_record(target.with_name(target.name + ".json"), record)
    return record


def _target(out: Path, job: SlideJob) -> Path:
    return out / Path(job.name)


def _work(
    job: SlideJob, tools: _Tools, reader: SlideReader, mark: str, listener: RunListener
) -> tuple[PipelineFigures, SlideView, dict[str, float]]:
    """Run the pipeline into a spool, and the spool into the slide's file."""
    settings, card = tools.settings, tools.model.card
    view = SlideView(reader, card.scale, slide_scale(reader.info, settings.mpp))
    started = time.perf_counter()
    tissue = tissue_mask(reader, view) if settings.tissue else None
    tissue_seconds = time.perf_counter() - started
    grid = TileGrid(view.height, view.width, card.patch, settings.block)
    target = _target(settings.out, job)
    target.parent.mkdir(parents=True, exist_ok=True)
    spool = Spool(target.with_name(f".{target.name}.spool"), shape_names(view.scale.um_per_px), _key(mark, view, tools))
    try:
        stages = Stages(view, tissue, tools.predictor, tools.post, spool)
        pipeline = SlidePipeline(stages, grid, settings.workers, lambda p: listener.slide_progress(job, p))
        figures = pipeline.run()
        started = time.perf_counter()
        _write(target.with_name(target.name + tools.writer.suffix), view, mark, tools, spool)
        figures.seconds = {"tissue": tissue_seconds, **figures.seconds, "write": time.perf_counter() - started}
        spool.remove()
    finally:
        spool.close()
    extra = {} if tissue is None else {"tissue_mm2": tissue.area_mm2}
    return figures, view, extra


def _key(mark: str, view: SlideView, tools: _Tools) -> str:
    """Return what the objects in a spool depend on: only a run that agrees in all of it may go on with them."""
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


def _write(path: Path, view: SlideView, mark: str, tools: _Tools, spool: Spool) -> None:
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
    try:
        for objects in spool.blocks():
            session.write(objects)
        session.commit()
    except BaseException:
        session.abort()
        raise


def _record(reader: SlideReader, view: SlideView, mark: str, tools: _Tools) -> SlideRecord:
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
