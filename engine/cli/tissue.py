"""``nuclix tissue``: what `nuclix run` takes for tissue, as a picture and as annotations."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.pictures import PICTURE_SUFFIXES, check_outputs, picture_edge
from nuclix.engine.cli.streams import stderr_line, stdout_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from nuclix.engine.contracts import SlideReader
    from nuclix.engine.slide.quality import SlideQuality
    from nuclix.engine.slide.tissue import TissueMask

EDGE = 1024
LINE = 2  # pixels: a thin line is lost in a picture of a whole slide
MM2_PER_UM2 = 1e-6


@dataclass(frozen=True, slots=True)
class _Slide:
    """An open slide, its scale and its tissue."""

    reader: SlideReader
    mpp: float
    tissue: TissueMask


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "tissue",
        help="show the detected tissue of a slide",
        description="Find the tissue of a slide as `nuclix run` does, print its area and save a picture with its "
        "outline. `nuclix run` skips tiles that lie wholly outside.",
    )
    parser.add_argument("slide", type=Path, metavar="SLIDE", help="the slide")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the picture; replaced if it exists")
    parser.add_argument(
        "--geojson", type=Path, metavar="FILE",
        help="write the outlines as QuPath annotations (.geojson or .geojson.gz), without pieces and holes below "
        "0.01 mm2",
    )  # fmt: skip
    parser.add_argument(
        "--max-size", type=picture_edge, default=EDGE, metavar="PX", help="longer edge of the picture (%(default)s)"
    )
    parser.add_argument(
        "--mpp", type=float, metavar="UM", help="um/px of the full resolution, for slides that do not state it"
    )
    parser.add_argument("--reader", metavar="NAME", help="open the slide with this reader (default: chosen by content)")
    parser.set_defaults(command=tissue)


def tissue(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.report.overlay import save_picture
    from nuclix.engine.slide.open import open_slide, slide_scale
    from nuclix.engine.slide.quality import quality_warnings, slide_quality
    from nuclix.engine.slide.samples import tissue_samples
    from nuclix.engine.slide.tissue import read_overview, tissue_mask
    from nuclix.engine.slide.view import SlideView, slide_bounds

    outputs: list[tuple[str, Path, tuple[str, ...]]] = [("--out", args.out, PICTURE_SUFFIXES)]
    if args.geojson is not None:
        outputs.append(("--geojson", args.geojson, (".geojson", ".geojson.gz")))
    check_outputs(outputs, (args.slide,))
    reader = open_slide(args.slide, args.reader)
    try:
        scale = slide_scale(reader.info, args.mpp)
        view = SlideView(reader, scale, scale)
        overview = read_overview(reader, view)
        slide = _Slide(reader, scale.mpp, tissue_mask(reader, view, overview))
        quality = slide_quality(tissue_samples(reader, view, slide.tissue), overview, slide.tissue)
        image = _picture(slide, args.max_size)
        area = slide_bounds(reader.info).area * scale.mpp**2 * MM2_PER_UM2
    finally:
        reader.close()
    save_picture(image, args.out)
    found = slide.tissue.area_mm2
    # The mask's last row and column may reach over the slide's edge.
    stdout_line(f"tissue: {found:.4g} mm2, {min(1.0, found / area):.1%} of the slide ({area:.4g} mm2)")
    stdout_line(_quality_line(quality))
    for warning in quality_warnings(quality):
        stderr_line(f"nuclix: warning: {args.slide}: {warning}")
    if not found:
        stderr_line(f"nuclix: warning: {args.slide}: no tissue; `nuclix run` would find nothing on it")
    stdout_line(f"wrote {args.out}: {image.width} x {image.height} px")
    if args.geojson is not None:
        stdout_line(f"wrote {args.geojson}: {_write_annotations(slide, args.geojson)} annotations")
    return 0


def _quality_line(quality: SlideQuality) -> str:
    """Return focus, stain and artefacts in one line."""
    focus = "unknown" if quality.out_of_focus is None else f"{quality.out_of_focus:.0%}"
    stain = "unknown"
    if quality.stain_angles is not None:
        stain = " and ".join(f"{angle:.0f}" for angle in quality.stain_angles) + " degrees"
    marks = {
        "ink": quality.pen_mm2, "dust": quality.dust_mm2, "coverslip edge": quality.coverslip_mm2,
        "border": quality.border_mm2,
    }  # fmt: skip
    seen = ", ".join(f"{name} {area:.2g} mm2" for name, area in marks.items() if area)
    line = f"out of focus: {focus}; hematoxylin and eosin from the reference: {stain}"
    return f"{line}; {seen}" if seen else line


def _picture(slide: _Slide, edge: int) -> Image.Image:
    from nuclix.engine.report.overlay import Window, draw_outlines
    from nuclix.engine.segmentation.annotations import TISSUE

    window = Window.of_slide(slide.reader.info, edge)
    rings = ((ring, TISSUE.color) for ring in _rings(slide, window.downsample))
    return draw_outlines(slide.reader, rings, window, LINE)


def _rings(slide: _Slide, downsample: float) -> Iterator[NDArray[np.float64]]:
    """Yield the rings of every piece of tissue, closed, in level-0 pixels from the corner of the slide's bounds.

    They are kept `LINE` pixels of the picture from the slide's right and lower edge, where they would not be seen.
    """
    import numpy as np

    from nuclix.engine.slide.mask_polygons import mask_regions
    from nuclix.engine.slide.view import slide_bounds

    bounds = slide_bounds(slide.reader.info)
    corner = np.array([bounds.col, bounds.row], np.float64)
    limits = np.maximum(0.0, np.array([bounds.width, bounds.height]) - LINE * downsample)
    for polygon in mask_regions(slide.tissue.mask, 1).polygons:
        for ring in polygon:
            closed = np.concatenate([ring, ring[:1]])
            yield np.clip(closed * slide.tissue.downsample - corner, 0.0, limits)


def _write_annotations(slide: _Slide, path: Path) -> int:
    """Write the pieces of tissue as annotations; return how many there are."""
    from importlib.metadata import version
    from typing import cast

    from nuclix.engine import registry
    from nuclix.engine.contracts import SlideHeader, Writer
    from nuclix.engine.segmentation.annotations import tissue_annotations
    from nuclix.engine.slide.open import fingerprint
    from nuclix.engine.slide.view import slide_bounds

    info = slide.reader.info
    bounds, mark = slide_bounds(info), fingerprint(info.path)
    header = SlideHeader(
        name=info.path.name,
        downsample=1.0,
        origin=(float(bounds.row), float(bounds.col)),
        classes=(),
        namespace=f"{mark}/tissue",
        shape=bounds.shape,
        mpp=slide.mpp,
        provenance={"version": version("nuclix"), "slide": info.path.name, "fingerprint": mark, "mpp": slide.mpp},
    )
    annotations = tissue_annotations(header, slide.tissue)
    name = "geojson.gz" if path.name.lower().endswith(".gz") else "geojson"
    writer = cast(type[Writer], registry.load(registry.WRITERS, name))()
    writer.open(path, replace(header, annotations=annotations)).commit()
    return len(annotations)
