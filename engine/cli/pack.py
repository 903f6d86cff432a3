"""``nuclix pack``: one model file of your own network and its card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DESCRIPTION = """\
Make a model file of your own network and a card in TOML that says what it takes and gives. The network is TorchScript
(torch.jit.trace or torch.jit.script, then torch.jit.save), an archive of torch.export.save (.pt2), or ONNX. The file is
checked on an image: shapes, ranges, how far a patch's border reaches (the margin, if the card leaves it out), whether
two runs agree, speed. See docs/own-model.md.

  nuclix pack network.pt --card card.toml --out model.pt
  nuclix pack model.pt --add openvino --out fast.pt         a network for OpenVINO, too: faster on Intel and AMD
  nuclix pack model.pt --add openvino --int8 --calibration IMAGES --out fast.pt
"""
ROOM = 2  # patches along an edge of the image: the margin is measured with a larger one


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "pack",
        help="make a model file of your own network",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", metavar="NETWORK", type=Path, help="TorchScript, torch.export (.pt2) or ONNX file")
    parser.add_argument("--card", metavar="FILE", type=Path, help="its description, as TOML (default: the one inside)")
    parser.add_argument("--add", metavar="RUNTIME", help="add a network for this runtime: openvino")
    parser.add_argument("--int8", action="store_true", help="with --add: and one that computes in int8")
    parser.add_argument(
        "--calibration",
        metavar="FILE|DIR",
        type=Path,
        nargs="+",
        default=(),
        help="with --int8: images of tissue at the model's scale, whose middles set the ranges of numbers",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the model file to write, with the suffix of NETWORK"
    )
    parser.add_argument(
        "--image",
        metavar="FILE",
        type=Path,
        help="tissue at the model's scale, to check it on (default: synthetic)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what was found as JSON")
    parser.set_defaults(command=pack)


def pack(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if not args.network.is_file():
        raise UsageError(f"{args.network} does not exist")
    for path in (args.out, args.json):
        if path is not None and not path.parent.is_dir():
            raise OutputError(f"{path} can't be written: {path.parent} is no folder")
    if args.int8 != bool(args.calibration) or (args.int8 and not args.add):
        raise UsageError("--int8 needs --add and --calibration, and --calibration needs --int8")
    if args.out.resolve() == args.network.resolve():
        raise UsageError(f"--out would replace {args.network}: choose another name")
    if args.card is not None:
        _pack(args)
    elif not args.add:
        raise UsageError("--card FILE is missing: what the network takes and gives (see docs/own-model.md)")
    if args.add:
        _add(args, args.network if args.card is None else args.out)
    print(f"wrote {args.out}")
    return 0


def _pack(args: argparse.Namespace) -> None:
    """Write a model file of a network and its card."""
    from nuclix.engine.files import replace_file
    from nuclix.engine.inference.card import patch_size_of
    from nuclix.engine.segmentation.packing import describe, facts_as_json, pack_model

    facts = pack_model(args.network, args.card, args.out, _image(args.image, patch_size_of(args.card)))
    print(describe(facts))
    if args.json is not None:
        replace_file(args.json, facts_as_json(facts).encode())


def _add(args: argparse.Namespace, model: Path) -> None:
    """Write a model file with networks for another runtime."""
    from nuclix.engine.inference.model_file import read_card
    from nuclix.engine.segmentation.pack_runtime import add_runtime

    edge = read_card(model).patch.size
    trial = _image(args.image, edge)[:edge, :edge]
    calibration = [_patch(path, edge) for path in _files(args.calibration)]
    for item in add_runtime(model, args.out, args.add, trial, calibration):
        print(
            f"{args.add:<11} {item.precision}: maps differ from PyTorch's by {item.mean:.2g} of their range, at most "
            f"{item.largest:.2g}"
        )
    print(f"file        {args.out.stat().st_size} bytes")


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named, and those in the folders that are."""
    found: list[Path] = []
    for path in paths:
        found += sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
    return found


def _patch(path: Path, edge: int) -> NDArray[np.uint8]:
    """Return the middle of an image, which is mirrored where it is smaller."""
    import numpy as np

    from nuclix.engine.geometry import Box
    from nuclix.engine.slide.open import open_slide

    reader = open_slide(path)
    try:
        level = reader.info.levels[0]
        height, width = min(edge, level.height), min(edge, level.width)
        image = reader.read(0, Box((level.height - height) // 2, (level.width - width) // 2, height, width))
    finally:
        reader.close()
    return np.pad(image, ((0, edge - height), (0, edge - width), (0, 0)), mode="symmetric")


def _image(path: Path | None, size: int) -> NDArray[np.uint8]:
    """Return the middle of an image or slide, or of a synthetic slide."""
    import tempfile

    from nuclix.engine.slide.synthetic import make_synthetic_slide

    edge = ROOM * size
    if path is not None:
        return _patch(path, edge)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "synthetic.tif"
        make_synthetic_slide(slide, max(edge, 1024))
        return _patch(slide, edge)
