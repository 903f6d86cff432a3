"""``nuclix prepare``: training images from annotated slides or from arrays."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.streams import stdout_line
from nuclix.engine.errors import DataError, UsageError

if TYPE_CHECKING:
    from nuclix.engine.training.contracts import Annotated

MPP = 0.25  # of the recipes that come with nuclix


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "prepare",
        help="cut training images from annotated slides",
        description="Write a data folder for `nuclix train`: the annotated regions of slides at the training scale "
        "with the nuclei outlined in them, or the images of NumPy arrays. A slide is a group: its regions all train, "
        "or all validate.",
    )
    parser.add_argument("slides", nargs="*", type=Path, metavar="SLIDE", help="slides with annotated regions")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    parser.add_argument(
        "--annotations", metavar="PATH", help="GeoJSON of the slide, or a folder with one of each slide's name"
    )
    parser.add_argument(
        "--region-class", metavar="NAME", help="class of the annotations that are regions (default: every rectangle)"
    )
    parser.add_argument(
        "--arrays", nargs=2, type=Path, action="append", default=[], metavar=("IMAGES", "LABELS"),
        help="two .npy files: (N, H, W, 3) images and (N, H, W), (N, H, W, 2) or (N, H, W, C) labels, as Lizard, CoNIC "
        "and PanNuke have them; may be repeated, each pair is a group",
    )  # fmt: skip
    parser.add_argument("--mpp", type=float, default=MPP, metavar="UM", help="um/px of the images (%(default)s)")
    parser.add_argument(
        "--slide-mpp", type=float, metavar="UM", help="um/px of the full resolution, for slides that do not state it"
    )
    parser.add_argument("--reader", metavar="NAME", help="open slides with this reader (default: chosen by content)")
    parser.set_defaults(command=prepare)


def prepare(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.training.annotated_slides import DatasetWriter

    if not args.slides and not args.arrays:
        raise UsageError("name slides (with --annotations) or --arrays IMAGES LABELS")
    if args.slides and args.annotations is None:
        raise UsageError("--annotations is missing: a GeoJSON file, or a folder with one of each slide's name")
    if not args.mpp > 0:
        raise UsageError(f"--mpp must be positive, not {args.mpp:g}")
    writer = DatasetWriter(args.out)
    writer.open()
    images = nuclei = 0
    for item, group in _items(args):
        writer.add(item, args.mpp, group)
        images, nuclei = images + 1, nuclei + int(item.labels.max(initial=0))
    writer.close()
    stdout_line(f"wrote {args.out}: {images} images with {nuclei} nuclei at {args.mpp:g} um/px")
    return 0


def _items(args: argparse.Namespace) -> Iterator[tuple[Annotated, str]]:
    """Yield every training image with its group."""
    from nuclix.engine.training.annotated_slides import annotated_arrays

    for slide in args.slides:
        yield from ((item, slide.stem) for item in _of_slide(args, slide))
    for images, labels in args.arrays:
        yield from ((item, images.stem) for item in annotated_arrays(images, labels))


def _of_slide(args: argparse.Namespace, slide: Path) -> Iterator[Annotated]:
    from nuclix.engine.geometry import Scale
    from nuclix.engine.slide.open import open_slide, slide_scale
    from nuclix.engine.slide.side_files import ANNOTATION_SUFFIXES, side_file
    from nuclix.engine.training.annotated_slides import annotated_regions

    annotations = side_file(args.annotations, slide, ANNOTATION_SUFFIXES)
    if annotations is None:
        raise DataError(f"{slide}: no annotations in {args.annotations}; export them as {slide.stem}.geojson")
    reader = open_slide(slide, args.reader)
    try:
        scale = slide_scale(reader.info, args.slide_mpp)
        yield from annotated_regions(reader, (Scale(args.mpp), scale), annotations, args.region_class)
    finally:
        reader.close()
