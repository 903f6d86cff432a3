"""Compute the objects of one slide, and store them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclix.engine.errors import OutputError, SlideError
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.parameters import as_mapping
from nuclix.engine.registry import installed_version
from nuclix.engine.run_config import result_settings
from nuclix.engine.segmentation.checkpoint import Checkpoint
from nuclix.engine.segmentation.classes import identity_mapping
from nuclix.engine.segmentation.description import slide_header, slide_record
from nuclix.engine.segmentation.hooks import PipelineFigures, Progress
from nuclix.engine.segmentation.measure import MeasurementSettings, measurement_names
from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.segmentation.pipeline import PipelineInputs, SlidePipeline
from nuclix.engine.segmentation.regions import RegionCounter, side_file_hashes, stored_regions
from nuclix.engine.segmentation.result_key import RESULT_FORMAT, objects_key
from nuclix.engine.segmentation.store import StoredSlide, StoreWriter
from nuclix.engine.segmentation.summary import SummaryAccumulator, write_summary
from nuclix.engine.segmentation.survey import Survey, SurveyInputs
from nuclix.engine.slide.colour import reader_name
from nuclix.engine.slide.identity import slide_state
from nuclix.engine.slide.side_files import MASK_SUFFIXES, required_side_file
from nuclix.engine.slide.tissue import Overview, TissueMask, read_overview, tissue_mask
from nuclix.engine.slide.tissue_file import read_tissue_mask

if TYPE_CHECKING:
    from nuclix.engine.segmentation.doubts import SlideColours
    from nuclix.engine.segmentation.slide import SlideContext
    from nuclix.engine.segmentation.slide_stains import SlideStains

# Options of the slide that a checkpoint depends on.
_LIMITS = ("region", "region_class", "region_exclude", "icc", "stain_normalisation")


def compute_objects(slide: SlideContext) -> None:
    """Run the pipeline into the checkpoint, and store the objects from it."""
    shared, config, view = slide.shared, slide.shared.config, slide.view
    started = time.perf_counter()
    overview = read_overview(view.reader, view, slide.stop_if_asked) if config.tissue else None
    tissue = _tissue(slide, overview)
    tissue_seconds = time.perf_counter() - started
    for folder in (slide.paths.thumbnail.parent, slide.paths.objects.parent, slide.paths.checkpoint.parent):
        _make_folder(slide.paths.out, folder)
    about = SurveyInputs(view, overview, tissue, shared.measurements, config.stain_normalisation, slide.paths.thumbnail)
    del overview
    key = checkpoint_key(slide, shared.predictor.batch)
    names = measurement_names(view.scale.mpp, shared.measurements)
    with Survey(about) as survey, closing(Checkpoint(slide.paths.checkpoint, names, key)) as checkpoint:
        del about
        figures = _run_pipeline(slide, tissue, survey, checkpoint)
        found = survey.result()
        figures.seconds = {"tissue": tissue_seconds, "thumbnail": found.thumbnail_seconds, **figures.seconds}
        from nuclix.engine.slide.quality import quality_warnings

        figures.quality = found.quality
        figures.doubts = [*quality_warnings(found.quality), *found.said, *found.stains.warnings]
        _store(slide, checkpoint, figures, _Background(tissue, found.colours), found.stains)


def _run_pipeline(
    slide: SlideContext, tissue: TissueMask | None, survey: Survey, checkpoint: Checkpoint
) -> PipelineFigures:
    """Compute the objects of a slide, while the survey goes on."""
    shared, config, view = slide.shared, slide.shared.config, slide.view
    grid, hooks = TileGrid(view.height, view.width, shared.model.card.patch, config.block), survey.watched(slide.hooks)
    inputs = PipelineInputs(
        view, tissue, shared.predictor, shared.post, checkpoint, shared.classes.rule, survey.measurements,
        config.min_score, survey.normalise,
    )  # fmt: skip
    if slide.regions is not None:
        from nuclix.engine.segmentation.cells import nuclei_reach
        from nuclix.engine.segmentation.region_search import limited_inputs

        patches = slide.regions.patches(nuclei_reach(survey.measurements, view.scale.mpp))
        inputs = limited_inputs(inputs, patches, grid, config.threads, hooks)
    return SlidePipeline(inputs, grid, config.threads, hooks).run()


def _tissue(slide: SlideContext, overview: Overview | None) -> TissueMask | None:
    """Return where to compute: the user's mask, what is found on the overview, or None for everywhere."""
    config, view = slide.shared.config, slide.view
    if overview is None:
        return None
    if config.tissue_mask is None:
        return tissue_mask(view.reader, view, overview)
    path = required_side_file(config.tissue_mask, slide.paths.slide, MASK_SUFFIXES, "--tissue-mask")
    return read_tissue_mask(path, view.reader, view)


def _make_folder(out: Path, folder: Path) -> None:
    """Make a sub-folder of the output folder, which itself must be there: one that has vanished stays away."""
    try:
        out.stat()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be written: {error.strerror}") from error


def checkpoint_key(slide: SlideContext, batch: int) -> str:
    """Return what a checkpoint depends on: only a run that agrees in all of it resumes from it."""
    from nuclix.engine.inference.device import hardware_name

    shared, config = slide.shared, slide.shared.config
    facts = {
        "format": RESULT_FORMAT,
        "nuclix": installed_version("nuclix"),
        "runtime": shared.predictor.runtime,
        "slide": slide.fingerprint,
        "slide_state": slide.state.text,
        "reader": reader_name(slide.view.reader),
        "model": shared.model.sha256,
        "parameters": dict(as_mapping(shared.post)),
        "min_score": config.min_score,
        "mpp": slide.view.scale.mpp,
        "block": config.block,
        "tissue": config.tissue,
        "measurements": as_mapping(shared.measurements),
        "device": hardware_name(shared.predictor.device),
        "precision": shared.predictor.precision_name,
        "tta": shared.predictor.tta,
        "batch": batch,
        **side_file_hashes(config, slide.paths.slide),
        **{name: getattr(config, name) for name in _LIMITS},
    }
    return json.dumps(facts, sort_keys=True)


@dataclass(frozen=True, slots=True)
class _Background:
    """What is known of a slide before its objects: its tissue, and the colours of tissue and background."""

    tissue: TissueMask | None
    colours: SlideColours | None


def _finished(slide: SlideContext, checkpoint: Checkpoint, settings: MeasurementSettings) -> Iterator[Objects]:
    """Yield the objects to store in canonical order: nuclei, or the cells made of them."""
    if settings.cell_expansion is None or not len(checkpoint):
        return checkpoint.blocks()
    from nuclix.engine.segmentation.cells import CellMaker

    return CellMaker(checkpoint.everything(), slide.view, settings).blocks(slide.shared.config.threads)


def _store(
    slide: SlideContext,
    checkpoint: Checkpoint,
    figures: PipelineFigures,
    background: _Background,
    stains: SlideStains,
) -> None:
    """Store the checkpoint's objects in canonical order, with what is known of the slide."""
    from nuclix.engine.segmentation.doubts import BackgroundCounter, Findings, doubts

    started = time.perf_counter()
    end = Progress(figures.tiles, figures.tiles_total, figures.pixels, figures.nuclei, figures.rows)
    view, tissue = slide.view, background.tissue
    classes = slide.shared.model.card.classes  # a class map is applied when files are written
    summary = SummaryAccumulator(view, len(classes))
    outside = BackgroundCounter(tissue)
    writer = StoreWriter(slide.paths.objects)
    by_class = np.zeros(len(classes), np.int64)
    regions = slide.regions and RegionCounter(slide.regions, classes, view.scale.mpp)
    try:
        for block in _finished(slide, checkpoint, stains.settings):
            objects = regions.kept(block) if regions else block
            by_class += np.bincount(objects.classes, minlength=len(by_class))
            writer.write(objects)
            summary.add(objects)
            outside.add(objects.first)
            slide.hooks.on_progress(end)
        checkpoint.check()
        figures.nuclei = int(by_class.sum())
        digest = slide.content.result(lambda: slide.hooks.on_progress(end))
        _check_unchanged(slide)
        totals = summary.result()
        write_summary(slide.paths.summary, totals)
        found = Findings(figures.tiles_total, totals, outside.count, background.colours)
        figures.doubts += doubts(found, slide.shared.model.card)
        figures.seconds = {**figures.seconds, "write": time.perf_counter() - started}
        record = slide_record(slide, figures, tissue)
        record.result = {"key": slide.key, "slide_state": slide.state.text, "content": digest}
        record.counts = {**record.counts, "nuclei_by_class": identity_mapping(classes).named(by_class)}
        if slide.regions and regions:
            record.regions = regions.facts()
            record.counts = {**record.counts, "tissue_mm2": slide.regions.tissue_mm2(tissue, view)}
        settings = {**result_settings(slide.shared.config), **stains.vectors}
        header = slide_header(view, classes, slide.shared.model, slide.fingerprint, settings)
        shapes = stored_regions(slide.regions.regions) if slide.regions else b""
        writer.commit(StoredSlide(objects_key(slide.key), header, as_mapping(record), shapes), tissue)
    except BaseException:
        writer.abort()
        raise


def _check_unchanged(slide: SlideContext) -> None:
    """Raise `SlideError` if the slide's file is not the one that processing started with."""
    path = slide.paths.slide
    if slide_state(path) != slide.state:
        raise SlideError(f"{path}: was changed while it was being processed; run the same command again")
