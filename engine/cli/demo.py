"""``nuclix demo``: a made-up slide through the whole of ``nuclix run``, scored against what was drawn."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli import run

if TYPE_CHECKING:
    from nuclix.engine.slide.synthetic import SyntheticSlide

EDGE = 2048  # px: seconds on a CPU, and several blocks of patches
NAME = "demo-slide"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="try nuclix on a synthetic slide",
        description="Draw a small H&E-like slide, find its nuclei, score them and save a picture with their outlines.",
    )
    parser.add_argument("--out", type=Path, default=Path("nuclix-demo"), metavar="DIR", help="folder (%(default)s)")
    parser.add_argument("--model", metavar="NAME|FILE", help="installed model or model file (the default of run)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    parser.set_defaults(command=demo)


def demo(args: argparse.Namespace) -> int:
    """Draw, run, score, show; return the run's exit code if it fails."""
    from nuclix.engine.errors import OutputError
    from nuclix.engine.slide.synthetic import make_synthetic_slide

    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{args.out}: the folder can't be made ({error.strerror})") from error
    slide = make_synthetic_slide(args.out / f"{NAME}.tif", EDGE)
    print(f"drawn: {slide.path} ({slide.width} x {slide.height} px, {len(slide)} nuclei)", flush=True)
    code = _run(slide.path, args)
    if code:
        return code
    result = args.out / f"{NAME}.geojson"
    _score(slide, result)
    picture = _picture(slide, result)
    print(f"look at {picture}, or open {slide.path} in QuPath and drag {result} onto it")
    return 0


def _run(slide: Path, args: argparse.Namespace) -> int:
    """Give ``nuclix run`` its arguments as a user would."""
    parser = argparse.ArgumentParser(prog="nuclix")
    run.add_parser(parser.add_subparsers())
    model = ["--model", args.model] if args.model else []
    given = parser.parse_args(
        ["run", str(slide), "--out", str(args.out), "--device", args.device, "--recompute", *model]
    )
    return int(given.command(given))


def _score(slide: SyntheticSlide, result: Path) -> None:
    """Compare with the truth, which is saved as a label image for `nuclix evaluate`."""
    import tifffile

    from nuclix.engine.evaluation.evaluate import evaluate
    from nuclix.engine.geometry import Box

    truth = slide.path.parent / "truth" / f"{NAME}.tif"
    truth.parent.mkdir(exist_ok=True)
    tifffile.imwrite(truth, slide.labels(Box(0, 0, slide.height, slide.width)), compression="zlib")
    (scores,) = evaluate(result, truth).images.values()
    found = len(json.loads(result.read_bytes())["features"])
    print(f"found: {found} nuclei; AJI {scores.aji:.3f}, pixel F1 {scores.f1:.3f}, PQ {scores.pq:.3f}")
    print("(drawn nuclei are easier than real ones: these figures say that the installation works, no more)")


def _picture(slide: SyntheticSlide, result: Path) -> Path:
    from nuclix.engine.report.overlay import Window, write_overlay
    from nuclix.engine.slide.open import open_slide

    picture = slide.path.with_name(f"{NAME}-overlay.png")
    reader = open_slide(slide.path)
    try:
        write_overlay(reader, result, picture, Window.of_slide(reader.info, EDGE))
    finally:
        reader.close()
    return picture
