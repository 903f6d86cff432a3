"""The page of one slide: sample fields with outlines, maps, histograms; rendered from ``templates/slide.html``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nuclix.engine.batch.layout import objects_path, report_path
from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.files import replace_file
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.registry import installed_version
from nuclix.engine.report.charts import area_axis_end, area_histogram, score_histogram, sparkline
from nuclix.engine.report.collect import SlideFacts
from nuclix.engine.report.field_pictures import FieldPicture, css_color, field_pictures
from nuclix.engine.report.fields import choose_doubtful, choose_fields
from nuclix.engine.report.pictures import (
    Picture,
    class_uri,
    density_top,
    density_uri,
    jpeg_picture,
    ramp_css,
    read_thumbnail,
)
from nuclix.engine.report.region_outlines import region_outlines
from nuclix.engine.report.result_slide import find_slide, open_result_slide
from nuclix.engine.report.slide_scan import FIELD_UM, SlideScan, scan
from nuclix.engine.report.templating import environment, page_shell
from nuclix.engine.segmentation.store import ObjectStore
from nuclix.engine.segmentation.summary import SlideSummary, area_quantiles, read_summary
from nuclix.engine.slide.thumbnail import DIRECT_PIXELS
from nuclix.engine.slide.view import SlideView, slide_bounds

# Changes with what pages look like: those of another number are made again.
PAGE_FORMAT = 2
MAP_EDGE = 1000  # pixels of the picture of the whole slide
LISTED_VALUES = 4  # of a parameter; the record has all of them
_HEAD_BYTES = 400  # of a page, in which its mark stands
_MARK = '<meta name="nuclix-page" content="'
_WITHOUT_TISSUE = "-without-tissue"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page to make.

    Attributes
    ----------
    out : Path
        The output folder; it is only read.
    slide : SlideFacts
        A finished slide.
    report : Path
        The report, which the page links to.
    page : Path
        Where to write it.
    slides : Path or None
        A folder in which the slides lie now, where that is another one.
    """

    out: Path
    slide: SlideFacts
    report: Path
    page: Path
    slides: Path | None = None


def is_current(request: PageRequest) -> bool:
    """Return whether the page is there, shows the tissue, and was made of these objects by this version."""
    return _has_mark(request, complete=True)


def is_of_result(request: PageRequest) -> bool:
    """Return whether the page is there and was made of these objects, with or without the tissue."""
    return _has_mark(request, complete=False)


def _has_mark(request: PageRequest, *, complete: bool) -> bool:
    try:
        with request.page.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    mark = _mark(request)
    return bool(mark) and _MARK + mark + ('"' if complete else "") in head


def _mark(request: PageRequest) -> str:
    """Return what identifies the content of a page."""
    try:
        state = objects_path(request.out, request.slide.name).stat()
    except OSError:
        return ""
    facts = (
        PAGE_FORMAT,
        installed_version("nuclix"),
        state.st_mtime_ns,
        state.st_size,
        request.slide.name,
        _back(request),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def write_slide_page(request: PageRequest) -> str:
    """Make the page of a slide.

    Parameters
    ----------
    request : PageRequest
        The slide, and where the page goes. It is never partially written.

    Returns
    -------
    str
        Why the page shows no tissue; empty where it does.

    Raises
    ------
    DataError
        If the stored objects are missing or damaged.
    OSError
        If the page can't be written.
    """
    with ObjectStore(objects_path(request.out, request.slide.name)) as store:
        reader, problem = _open(request, store)
        try:
            try:
                content = _content(request, store, reader)
            except SlideError as error:  # damaged where a field lies
                problem = str(error)
                content = _content(request, store, None)
        finally:
            if reader is not None:
                reader.close()
    # A page without tissue is made again the next time: the slide may be back then.
    content |= {"problem": problem, "mark": _mark(request) + (_WITHOUT_TISSUE if problem else "")}
    text = environment().get_template("slide.html").render(content) + "\n"
    request.page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(request.page, text.encode("utf-8", "backslashreplace"), durable=False)
    return problem


def _open(request: PageRequest, store: ObjectStore) -> tuple[SlideReader | None, str]:
    path = find_slide(request.slide.path, request.out, request.slides)
    try:
        return open_result_slide(path, store.slide.header, store.slide.record), ""
    except SlideError as error:
        return None, str(error)


def _content(request: PageRequest, store: ObjectStore, reader: SlideReader | None) -> dict[str, Any]:
    """Return what the template shows."""
    from markupsafe import Markup

    slide, header = request.slide, store.slide.header
    counted = scan(store)
    fields = choose_fields(counted, store.slide.key)
    crops = choose_doubtful(counted)
    pictures = field_pictures(store, counted, (*fields, *crops), reader)
    areas = counted.areas.sum(axis=0)
    return {
        "slide": slide,
        "back": _back(request),
        "folder": request.out.resolve().name,
        "map": _map(request, reader),
        "fields": _numbered(pictures[: len(fields)], header.shape, header.origin),
        "crops": pictures[len(fields) :],
        "field_um": FIELD_UM,
        "regions": region_outlines(store.slide.regions, slide.regions),
        "shape": header.shape,
        "classes": _classes(slide, counted, header.classes),
        "single_class": header.classes[0].name if len(header.classes) == 1 else "",
        "median_um2": (area_quantiles(areas, (0.5,)) or (None,))[0],
        "areas": Markup(area_histogram(areas)) if areas.sum() else "",
        "scores": Markup(score_histogram(counted.scores)) if counted.scores.sum() else "",
        "details": _details(slide, store.slide.record),
        "version": installed_version("nuclix"),
        "ramp": Markup(ramp_css()),
        **page_shell(("page.css", "slide.css")),
    }


def _back(request: PageRequest) -> str:
    """Return the link from the page to the report."""
    relative = os.path.relpath(request.report, request.page.parent)
    return quote(os.fsencode(relative))


def _map(request: PageRequest, reader: SlideReader | None) -> dict[str, Any] | None:
    """Return the picture of the whole slide and what lies over it; None where there is no picture."""
    picture = _overview(reader) if reader is not None else None
    picture = picture or read_thumbnail(report_path(request.out, request.slide.name, ".jpg"), MAP_EDGE)
    if picture is None:
        return None
    summary = read_summary(report_path(request.out, request.slide.name, ".npz"))
    drawn = summary if summary is not None and summary.counts.sum() else None
    top = density_top([drawn] if drawn is not None else [])
    return {
        "picture": picture,
        "density": density_uri(drawn, top) if drawn is not None else "",
        "classes": slide_class_uri(request.slide, drawn, top),
        "top": top,
    }


def slide_class_uri(slide: SlideFacts, summary: SlideSummary | None, top: float) -> str:
    """Return the map of classes as a data URI; empty where there is none."""
    if summary is None or len(slide.class_colors) < 2:
        return ""
    return class_uri(summary, slide.class_colors, top)


def _overview(reader: SlideReader) -> Picture | None:
    """Return the whole slide; None where that would mean reading a large level."""
    bounds = slide_bounds(reader.info)
    view = SlideView(reader, Scale(max(1.0, max(bounds.shape) / MAP_EDGE)), Scale(1.0))
    level = reader.info.levels[view.level]
    if level.height * level.width > DIRECT_PIXELS:
        return None
    row, col = (int(place / view.downsample) for place in (bounds.row, bounds.col))
    height, width = (max(1, int(length / view.downsample)) for length in bounds.shape)
    return jpeg_picture(view.read(Box(row, col, height, width)))


def _numbered(
    pictures: Sequence[FieldPicture], shape: tuple[int, int], origin: tuple[float, float]
) -> list[dict[str, Any]]:
    """Return the fields with a number and their place on the map, in percent."""
    extent = max(shape[0], 1), max(shape[1], 1)
    return [{"number": number, **_placed(shown, extent, origin)} for number, shown in enumerate(pictures, start=1)]


def _placed(shown: FieldPicture, extent: tuple[int, int], origin: tuple[float, float]) -> dict[str, Any]:
    height, width = extent
    y, x = shown.box.row - origin[0], shown.box.col - origin[1]
    top, bottom = (min(max(place, 0.0), height) for place in (y, y + shown.box.height))
    left, right = (min(max(place, 0.0), width) for place in (x, x + shown.box.width))
    return {
        "shown": shown,
        "field": shown.field,
        "x": x,
        "y": y,
        "left": 100 * left / width,
        "top": 100 * top / height,
        "width": 100 * (right - left) / width,
        "height": 100 * (bottom - top) / height,
    }


def _classes(slide: SlideFacts, counted: SlideScan, kinds: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a line for each class of nuclei, where there are several."""
    from markupsafe import Markup

    if len(kinds) < 2:
        return []
    total = max(1, int(counted.areas.sum()))
    end = area_axis_end(counted.areas.sum(axis=0))
    lines = []
    for kind, areas in zip(kinds, counted.areas, strict=True):
        nuclei = int(areas.sum())
        median = area_quantiles(areas, (0.5,))
        lines.append(
            {
                "name": kind.name,
                "color": css_color(kind.color),
                "nuclei": nuclei,
                "percent": 100 * nuclei / total,
                "density": nuclei / slide.tissue_mm2 if slide.tissue_mm2 else None,
                "median_um2": median[0] if median else None,
                "line": Markup(sparkline(areas, end)) if nuclei else "",
            }
        )
    return lines


def _details(slide: SlideFacts, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of slide and result, as text."""
    facts = dict(record.get("slide", {}))
    model = slide.model
    parameters = ", ".join(f"{name} = {_short(value)}" for name, value in model.get("parameters", {}).items())
    rows: list[tuple[str, Any]] = [
        ("file", slide.path),
        ("scanner", facts.get("vendor")),
        ("size", f"{slide.width:,} x {slide.height:,} px" if slide.width and slide.height else None),
        ("scale", f"{slide.mpp:g} µm/px" + _source(facts) if slide.mpp else None),
        ("model", model.get("name")),
        ("model SHA-256", model.get("sha256")),
        ("post-processor", f"{model.get('postprocessor', '')} {parameters}".strip()),
        ("result", slide.output),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _source(facts: Mapping[str, Any]) -> str:
    return f" ({facts['scale_source']})" if facts.get("scale_source") else ""


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > LISTED_VALUES:
        return f"{len(value)} values"
    return f"{value:g}" if isinstance(value, float) and np.isfinite(value) else str(value)
