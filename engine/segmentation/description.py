"""What is kept of a slide with its objects: the record, and the header for writers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nuclix.engine.contracts import ObjectClass, SlideHeader
from nuclix.engine.parameters import as_mapping
from nuclix.engine.registry import installed_version
from nuclix.engine.run_config import config_as_json
from nuclix.engine.segmentation.hooks import PipelineFigures
from nuclix.engine.segmentation.record import SlideRecord, run_warnings
from nuclix.engine.slide.colour import profile_warnings, reader_name
from nuclix.engine.slide.damage import damage_of, damage_warnings
from nuclix.engine.slide.tissue import TissueMask
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from nuclix.engine.inference.model_file import LoadedModel
    from nuclix.engine.segmentation.slide import SegmentationContext, SlideContext


def slide_header(
    view: SlideView,
    classes: tuple[ObjectClass, ...],
    model: LoadedModel,
    fingerprint: str,
    settings: Mapping[str, Any] | None = None,
) -> SlideHeader:
    """Return what writers must know of a slide.

    Parameters
    ----------
    view : SlideView
        The slide at the model's scale.
    classes : tuple of ObjectClass
        The classes of its objects.
    model : LoadedModel
        The model that found them.
    fingerprint : str
        The slide's.
    settings : mapping, optional
        Options that the objects depend on, for the provenance.
    """
    bounds = slide_bounds(view.info)
    mpp = view.scale.mpp / view.downsample
    card = model.card
    return SlideHeader(
        name=view.info.path.name,
        downsample=view.downsample,
        origin=(float(bounds.row), float(bounds.col)),
        classes=classes,
        namespace=f"{fingerprint}/{model.sha256}",
        shape=bounds.shape,
        mpp=mpp,
        provenance={
            "version": installed_version("nuclix"),
            "slide": view.info.path.name,
            "fingerprint": fingerprint,
            "mpp": mpp,
            "model": {"name": card.name, "sha256": model.sha256, "postprocessor": card.postprocessor},
            "settings": dict(settings or {}),
        },
    )


def slide_record(slide: SlideContext, figures: PipelineFigures, tissue: TissueMask | None) -> SlideRecord:
    """Return the record of a slide whose objects are complete; its files are still to be written."""
    info, view, shared = slide.view.info, slide.view, slide.shared
    predictor = shared.predictor
    seconds = {"wall": time.perf_counter() - slide.started, **figures.seconds}
    if figures.first_tile_at is not None and shared.first:
        shared.first = False
        seconds = {"start_to_first_tile": figures.first_tile_at - shared.started, **seconds}
    return SlideRecord(
        slide={
            "path": str(info.path),
            "fingerprint": slide.fingerprint,
            "vendor": info.vendor,
            "reader": reader_name(view.reader),
            "height": info.levels[0].height,
            "width": info.levels[0].width,
            "mpp": view.scale.mpp / view.downsample,
            "mpp_source": slide.scale.source,
            "mpp_stated": slide.scale.stated,
            "bounds": asdict(info.bounds) if info.bounds else None,
            "model_downsample": view.downsample,
            "damage": asdict(damage_of(view.reader)),
            "quality": asdict(figures.quality) if figures.quality else None,
        },
        model=_model_facts(shared),
        settings=config_as_json(shared.config),
        seconds=seconds,
        counts={
            "tiles": figures.tiles,
            "tiles_total": figures.tiles_total,
            "pixels": figures.pixels,
            "nuclei": figures.nuclei,
            "rows": figures.rows,
            "rows_resumed": figures.rows_resumed,
            "pixels_resumed": figures.pixels_resumed,
            **({} if tissue is None else {"tissue_mm2": tissue.area_mm2}),
        },
        warnings=[
            *shared.notes,
            *slide.scale.warnings,
            *profile_warnings(view.reader, asked=shared.config.icc),
            *figures.doubts,
            *damage_warnings(damage_of(view.reader)),
            *run_warnings(figures.clumps_cut, predictor.asked, predictor.batch),
        ],
    )


def _model_facts(shared: SegmentationContext) -> dict[str, Any]:
    """Return what the record states of the model, its post-processing and the device."""
    from nuclix.engine.inference.device import hardware_name

    predictor = shared.predictor
    return {
        "name": shared.model.card.name,
        "sha256": shared.model.sha256,
        "postprocessor": shared.model.card.postprocessor,
        "parameters": dict(as_mapping(shared.post)),
        "classes": [as_mapping(item) for item in shared.classes.mapping.classes],
        "device": f"{predictor.device} ({hardware_name(predictor.device)})",
        "runtime": predictor.runtime,
        "precision": predictor.precision_name,
        "tta": predictor.tta,
        "batch": predictor.batch,
    }
