"""``nuclix simulate``: the dummy data set on which DIST's paper compares its formulations."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COUNT, HELD_OUT, EDGE = 50, 10, 512  # DIST paper: 50 images of 512 px (section III-A), 10 retained (section V-B)
DILATION = 3
MAX_PIXELS = 10**9  # the made-up truth is held in memory, at four bytes a pixel and SPARE times over
SPARE = 2  # squares of the made-up truth for each that is asked for: some lie on background


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "simulate",
        help="make a synthetic data set to train on",
        description="Paint true nuclei in random colours (DIST paper, Algorithm 1): a data set for `nuclix train` that "
        "shows what a network can learn of distances.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="takes images/, labels/ and split.csv")
    parser.add_argument(
        "--labels", type=Path, metavar="DIR", help="label images to take nuclei from (default: synthetic nuclei)"
    )
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help="number of images (%(default)s)")
    parser.add_argument(
        "--hold-out", type=int, default=HELD_OUT, metavar="N", help="how many of them are for validation (%(default)s)"
    )
    parser.add_argument("--size", type=int, default=EDGE, metavar="PX", help="edge of an image (%(default)s)")
    parser.add_argument(
        "--dilation",
        type=int,
        default=DILATION,
        metavar="PX",
        help="dilation of nuclei in pixels, so that they touch (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (%(default)s)")
    parser.set_defaults(command=simulate)


def simulate(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.training.simulated import Simulation, simulated, write_dataset

    if args.size < 1 or args.dilation < 0:
        raise UsageError("--size must be positive and --dilation at least 0")
    if args.seed < 0:
        raise UsageError("--seed must be 0 or more")
    if args.count * args.size**2 > MAX_PIXELS:
        raise UsageError(
            f"--count {args.count} images of --size {args.size} are more than {MAX_PIXELS // 10**9} billion pixels"
        )
    if not 0 < args.hold_out < args.count:
        raise UsageError("--hold-out must be positive and smaller than --count")
    made = simulated(_truths(args), Simulation(dilation=args.dilation), args.size, args.seed)
    if len(made) < args.count:
        raise DataError(
            f"{args.labels or 'the made-up nuclei'}: enough for {len(made)} squares of {args.size} px only; "
            "ask for fewer (--count) or smaller ones (--size)"
        )
    kept = args.count - args.hold_out
    write_dataset(args.out, (made[:kept], made[kept : args.count]))
    print(f"wrote {args.out}: {kept} images to train on, {args.hold_out} to validate on")
    return 0


def _truths(args: argparse.Namespace) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Yield names and label images: those of a folder, or those of the demo's slide in a size that suffices."""
    import math

    import numpy as np

    if args.labels is None:
        from nuclix.engine.slide.synthetic import synthetic_labels

        yield "made-up", synthetic_labels(args.size * math.ceil(math.sqrt(SPARE * args.count)), args.seed)
        return
    from nuclix.engine.evaluation.label_files import find_label_files, read_label_image

    for name, path in find_label_files(args.labels).items():
        yield name, read_label_image(path).astype(np.int32)
