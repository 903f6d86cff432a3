"""``nuclix pack``: one model file of your own network and its card."""

from __future__ import annotations

import argparse
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
    parser.add_argument("--card", metavar="FILE", type=Path, required=True, help="its description, as TOML")
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
    from nuclix.engine.files import replace_file
    from nuclix.engine.segmentation.packing import describe, facts_as_json, pack_model

    if not args.network.is_file():
        raise UsageError(f"{args.network} does not exist")
    for path in (args.out, args.json):
        if path is not None and not path.parent.is_dir():
            raise OutputError(f"{path} can't be written: {path.parent} is no folder")
    if args.out.resolve() == args.network.resolve():
        raise UsageError(f"--out would replace {args.network}: choose another name")
    facts = pack_model(args.network, args.card, args.out, _image(args.image, args.card))
    print(describe(facts))
    if args.json is not None:
        replace_file(args.json, facts_as_json(facts).encode())
    print(f"wrote {args.out}")
    return 0


def _image(path: Path | None, card: Path) -> NDArray[np.uint8]:
    """Return the middle of an image or slide, or of a synthetic slide."""
    import tempfile

    from nuclix.engine.inference.card import patch_size_of
    from nuclix.engine.slide.synthetic import make_synthetic_slide

    edge = ROOM * patch_size_of(card)
    if path is not None:
        return _middle(path, edge)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "synthetic.tif"
        make_synthetic_slide(slide, max(edge, 1024))
        return _middle(slide, edge)


def _middle(path: Path, edge: int) -> NDArray[np.uint8]:
    from nuclix.engine.geometry import Box
    from nuclix.engine.slide.open import open_slide

    reader = open_slide(path)
    try:
        level = reader.info.levels[0]
        return reader.read(0, Box((level.height - edge) // 2, (level.width - edge) // 2, edge, edge))
    finally:
        reader.close()
