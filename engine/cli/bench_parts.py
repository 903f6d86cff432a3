"""``nuclix bench network``, ``nuclix bench kernels`` and ``nuclix bench margin``: parts of a run, measured alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.cli.streams import stdout_line
from nuclix.engine.errors import OutputError, UsageError
from nuclix.engine.progress.text import significant

if TYPE_CHECKING:
    from nuclix.engine.bench.margins import MarginFigures, Picture
    from nuclix.engine.inference.model_file import LoadedModel

PARTS = ("network", "kernels", "margin")
MARGIN_SLIDE = 3072  # px: largest part of a slide on which margins are compared
_MS = 1e3

_NETWORK = """\
Time the network alone, without slides and post-processing: every combination of patch size, batch, precision and
runtime. It is the limit of a run on this machine.
"""
_KERNELS = """\
Time the compiled kernels on a synthetic field of nuclei, and the same work in scikit-image, SciPy and OpenCV as far
as they are installed.
"""
_MARGIN = """\
Compare margins of a model's patches: the same image in grids of several margins, against the largest one. Prints the
share of the pixels that is useful, the change of the maps, nuclei lost and changed, and AJI where labels are given.
"""


def joined(argv: Sequence[str]) -> list[str]:
    """Return a command line in which ``bench network`` and the like are one word, as argparse wants it."""
    if len(argv) > 1 and argv[0] == "bench" and argv[1] in PARTS:
        return [f"bench-{argv[1]}", *argv[2:]]
    return list(argv)


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands; none is listed, for ``nuclix bench --help`` names them."""
    parser = _added(subparsers, "network", _NETWORK)
    _add_model(parser)
    parser.add_argument("--sizes", type=_numbers, default=(), metavar="PX,PX", help="edges of patches (the model's)")
    parser.add_argument("--batches", type=_numbers, default=(1,), metavar="N,N", help="patches a pass (1)")
    parser.add_argument("--precisions", type=_words, default=("auto",), metavar="TYPE,TYPE", help="(auto)")
    parser.add_argument("--runtimes", type=_words, default=("auto",), metavar="NAME,NAME", help="(auto)")
    _add_output(parser)
    parser.set_defaults(command=network)

    parser = _added(subparsers, "kernels", _KERNELS)
    parser.add_argument("--size", type=int, default=1000, metavar="PX", help="edge of the field (%(default)s)")
    _add_output(parser)
    parser.set_defaults(command=kernels)

    parser = _added(subparsers, "margin", _MARGIN)
    parser.add_argument("slide", nargs="?", type=Path, metavar="SLIDE", help="slide or image; its middle is used")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of images/ and labels/; validation images")
    parser.add_argument("--split", type=Path, metavar="CSV", help="split of the images in --data (its split.csv)")
    _add_model(parser)
    parser.add_argument("--size", type=int, metavar="PX", help="edge of a patch (the model's)")
    parser.add_argument(
        "--margins", type=_numbers, default=(128, 96, 64, 48, 32), metavar="PX,PX", help="(128,96,64,48,32)"
    )
    parser.add_argument("--precision", default="auto", metavar="TYPE", help="number format of the network (auto)")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the model with the last margin, and what was measured of it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as JSON")
    parser.set_defaults(command=margin)


def _added(subparsers: Any, name: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        f"bench-{name}",
        prog=f"nuclix bench {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    from nuclix.engine.run_config import DEFAULT_MODEL

    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="(%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="calls that are timed (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as JSON")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: give whole numbers separated by commas") from None
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"{text}: give numbers that are not negative")
    return values


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def network(args: argparse.Namespace) -> int:
    """Time the network and print a table."""
    from nuclix.engine.bench.network import Sweep, time_network

    _check(args)
    sweep = Sweep(args.model, args.device, args.sizes, args.batches, args.precisions, args.runtimes, args.repeat)
    try:
        found = time_network(sweep)
    except ValueError as error:  # a patch size that does not fit the model's card
        raise UsageError(f"--sizes: {error}") from error
    stdout_line(
        f"{'runtime':<12}{'precision':<10}{'patch':>6}{'batch':>6}{'s a pass':>10}{'CPU s':>8}{'Mpx/s':>8}{'useful':>8}"
    )
    for item in found:
        head = f"{item.runtime:<12}{item.precision:<10}{item.size:>6}{item.batch:>6}"
        stdout_line(
            f"{head}  {item.problem}"
            if item.problem
            else f"{head}{item.seconds:>10.3f}{item.cpu_seconds:>8.3f}{significant(item.mpx_per_second):>8}"
            f"{significant(item.useful_mpx_per_second):>8}"
        )
    _write(args.json, {"model": args.model, "network": [asdict(item) for item in found]})
    return 0


def kernels(args: argparse.Namespace) -> int:
    """Time the kernels and print a table."""
    from nuclix.engine.bench.kernels import time_kernels

    _check(args)
    if args.size < 1:
        raise UsageError(f"--size must be at least 1, not {args.size}")
    found = []
    stdout_line(f"{'work':<26}{'nuclix, ms':>11}   peers, in multiples of it")
    for item in time_kernels(args.size, args.repeat):
        found.append(item)
        peers = ", ".join(f"{name} {seconds / item.seconds:.1f}" for name, seconds in item.peers.items())
        stdout_line(f"{item.kernel:<26}{_MS * item.seconds:>11.2f}   {peers or 'none installed'}")
    _write(args.json, {"size": args.size, "kernels": [asdict(item) for item in found]})
    return 0


def margin(args: argparse.Namespace) -> int:
    """Compare margins and print a table."""
    from nuclix.engine.bench.margins import compare_margins
    from nuclix.engine.inference.device import choose_device, choose_precision, prepare_device
    from nuclix.engine.inference.model_file import find_model, load_model
    from nuclix.engine.inference.predictor import InferenceSettings
    from nuclix.engine.run_config import RunConfig
    from nuclix.engine.segmentation.preparation import post_processor

    if (args.slide is None) == (args.data is None):
        raise UsageError("give either a slide or image, or --data")
    for path in (args.json, args.write):
        _check_folder(path)
    model = load_model(find_model(args.model))
    post = post_processor(model.card, RunConfig(), args.model)
    patch = model.card.patch
    try:
        shapes = [replace(patch, size=args.size or patch.size, margin=value) for value in args.margins]
    except ValueError as error:
        raise UsageError(f"--margins: {error}") from error
    device = choose_device(args.device)
    prepare_device(device)
    settings = InferenceSettings(device, choose_precision(args.precision, device), 1)
    pictures = _pictures(args, model)
    found = compare_margins(model, settings, post, pictures, shapes)
    stdout_line(
        f"{'patch':>6}{'margin':>8}{'useful':>8}{'maps change':>13}{'nuclei':>8}{'lost':>6}{'changed':>9}{'AJI':>8}"
    )
    for item in found:
        aji = "-" if item.aji is None else f"{item.aji:.4f}"
        stdout_line(
            f"{item.patch.size:>6}{item.patch.margin:>8}{item.useful:>8.1%}{item.map_change:>13.4f}{item.nuclei:>8}"
            f"{item.lost:>6}{item.changed:>9}{aji:>8}"
        )
    _write(args.json, {"model": args.model, "margins": [asdict(item) for item in found]})
    if args.write is not None:
        _write_model(args.write, find_model(args.model), found)
        stdout_line(f"wrote {args.write}")
    return 0


def _pictures(args: argparse.Namespace, model: LoadedModel) -> list[Picture]:
    """Return what margins are compared on."""
    from nuclix.engine.bench.margins import Picture, mirrored
    from nuclix.engine.geometry import Box
    from nuclix.engine.slide.open import open_slide, slide_scale
    from nuclix.engine.slide.view import SlideView

    if args.data is not None:
        from nuclix.engine.training.dataset import load_dataset
        from nuclix.engine.training.splits import SplitOptions

        images = load_dataset(args.data, SplitOptions(table=args.split), model.card.scale.mpp).validation
        return [
            Picture(item.name, (item.image.shape[0], item.image.shape[1]), mirrored(item.image), item.labels)
            for item in images
        ]
    reader = open_slide(args.slide)
    try:
        view = SlideView(reader, model.card.scale, slide_scale(reader.info, None))
        height, width = min(view.height, MARGIN_SLIDE), min(view.width, MARGIN_SLIDE)
        middle = Box((view.height - height) // 2, (view.width - width) // 2, height, width)
        return [Picture(args.slide.name, middle.shape, mirrored(view.read(middle)))]
    finally:
        reader.close()


def _write_model(out: Path, path: Path, found: Sequence[MarginFigures]) -> None:
    """Write a copy of a model file whose card has the last of the margins and what was measured of it."""
    from nuclix.engine.inference.model_file import read_card, replace_card

    first, last = found[0], found[-1]
    measured = {
        "reference": first.patch.margin,
        "nuclei": last.nuclei,
        "lost": last.lost,
        "changed": last.changed,
        **({"aji": round(last.aji, 4), "aji_reference": round(first.aji or 0.0, 4)} if last.aji is not None else {}),
    }
    replace_card(path, out, replace(read_card(path), patch=last.patch, margin_test=measured))


def _check(args: argparse.Namespace) -> None:
    if args.repeat < 1:
        raise UsageError(f"--repeat must be at least 1, not {args.repeat}")
    _check_folder(args.json)


def _check_folder(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: can't be written: its folder does not exist")


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        from nuclix.engine.benchmark import machine_facts, write_benchmark

        write_benchmark(path, {**content, **machine_facts()})
