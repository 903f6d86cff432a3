"""``nuclix overlay``: a picture of a slide, or of a region of it, with the outlines of a result."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.pictures import PICTURE_SUFFIXES, check_outputs, picture_edge
from nuclix.engine.cli.streams import stderr_line, stdout_line
from nuclix.engine.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nuclix.engine.contracts import SlideInfo
    from nuclix.engine.geometry import Box

RESULT_SUFFIXES = (".geojson", ".geojson.gz", ".zip", ".json", ".json.gz")
EDGE = 2048  # fills a large screen


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "overlay",
        help="draw a result's outlines on its slide, as a picture",
        description="Draw the outlines of a result on the slide, or on a region of it, and save the picture. "
        "Each outline has the colour of its class; without a class it is green.",
    )
    parser.add_argument("slide", type=Path, metavar="SLIDE", help="the slide")
    parser.add_argument(
        "result", type=Path, metavar="RESULT", help="its result: .geojson, .geojson.gz or .zip (of GeoJSON files)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the picture; replaced if it exists")
    parser.add_argument(
        "--region", type=_region, metavar="X,Y,W,H",
        help="what to show, in level-0 pixels from the upper left corner of what QuPath shows (default: everything)",
    )  # fmt: skip
    parser.add_argument(
        "--max-size", type=picture_edge, default=EDGE, metavar="PX", help="longer edge of the picture (%(default)s)"
    )
    parser.add_argument("--reader", metavar="NAME", help="open the slide with this reader (default: chosen by content)")
    parser.set_defaults(command=overlay)


def _region(text: str) -> tuple[int, int, int, int]:
    """Return (x, y, width, height)."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be four whole numbers X,Y,W,H, not {text!r}") from None
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f"width and height must be positive, not {width} and {height}")
    return x, y, width, height


def overlay(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.report.overlay import Window, draw_outlines, outlines, save_picture
    from nuclix.engine.slide.open import open_slide

    check_outputs([("--out", args.out, PICTURE_SUFFIXES)], (args.slide, args.result))
    if not args.result.name.lower().endswith(RESULT_SUFFIXES):
        raise UsageError(
            f"{args.result}: is not GeoJSON ({', '.join(RESULT_SUFFIXES[:3])}); "
            "`nuclix export OUT --format geojson` writes it for a finished run"
        )
    slide = open_slide(args.slide, args.reader)
    try:
        box, corner = _shown(slide.info, args.region)
        rings = list(outlines(args.result))
        seen = [(ring, color) for ring, color in rings if _touches(ring, box.shift(-corner.row, -corner.col))]
        window = Window.of_box(box, args.max_size)
        image = draw_outlines(slide, seen, window)
    finally:
        slide.close()
    save_picture(image, args.out)
    if not rings:
        stderr_line(f"nuclix: warning: {args.result}: holds no outlines; the picture shows the slide alone")
    elif not seen:
        what = "region" if args.region else "slide"
        stderr_line(
            f"nuclix: warning: {args.result}: none of its {len(rings)} outlines lies in the {what}; "
            "is it the result of this slide?"
        )
    stdout_line(
        f"wrote {args.out}: {image.width} x {image.height} px, 1 px of the picture is {window.downsample:g} px of the "
        f"slide; {len(seen)} of {len(rings)} outlines"
    )
    return 0


def _shown(info: SlideInfo, region: tuple[int, int, int, int] | None) -> tuple[Box, Box]:
    """Return the box of level 0 to show, and that of all that QuPath shows.

    Raises
    ------
    UsageError
        If the region lies outside the slide.
    """
    from nuclix.engine.geometry import Box
    from nuclix.engine.slide.view import slide_bounds

    bounds = slide_bounds(info)
    if region is None:
        return bounds, bounds
    x, y, width, height = region
    box = Box(bounds.row + y, bounds.col + x, height, width).intersect(bounds)
    if not box.area:
        raise UsageError(
            f"--region {x},{y},{width},{height} lies outside {info.path}, which is {bounds.width} x {bounds.height} px"
        )
    return box, bounds


def _touches(ring: NDArray[np.float64], box: Box) -> bool:
    """Return whether the bounding box of a ring of (x, y) shares an area or a border with a box."""
    left, top = ring.min(axis=0)
    right, bottom = ring.max(axis=0)
    return bool(left <= box.col_end and right >= box.col and top <= box.row_end and bottom >= box.row)
