"""``nuclix info``: what a slide or a model file says of itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclix.engine.contracts import SlideInfo

MODEL_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript")
UM_PER_MM = 1000.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "info",
        help="show what a slide or a model file says of itself",
        description="Show a slide's size, levels and scale, or a model's card: data, licence, scores, parameters.",
    )
    parser.add_argument("file", metavar="FILE", help="a slide, a model file, or the name of an installed model")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=info)


def info(args: argparse.Namespace) -> int:
    """Print the facts."""
    import json

    from nuclix.engine import registry

    is_model = args.file in registry.names(registry.WEIGHTS) or _looks_like_a_model(Path(args.file))
    facts = model_facts(args.file) if is_model else slide_facts(Path(args.file))
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else "\n".join(_lines(facts)))
    return 0


def _looks_like_a_model(path: Path) -> bool:
    """TorchScript is a zip archive; a file with a model's ending is one too, even if it is damaged."""
    import zipfile

    return path.suffix.lower() in MODEL_SUFFIXES or (path.is_file() and zipfile.is_zipfile(path))


def slide_facts(path: Path) -> dict[str, Any]:
    """Return what a slide says of itself, in plain values.

    Parameters
    ----------
    path : Path
        The slide.

    Returns
    -------
    dict
        Keys in the order in which they are shown; sizes are (width, height) in px and mm, None where unknown.

    Raises
    ------
    SlideError
        If it can't be opened.
    """
    from nuclix.engine.slide.open import fingerprint, open_slide

    mark = fingerprint(path)
    reader = open_slide(path)
    try:
        facts = reader.info
    finally:
        reader.close()
    um = facts.scale.mpp if facts.scale is not None else None
    base = facts.levels[0]
    return {
        "slide": str(path),
        "vendor": facts.vendor,
        "size_px": [base.width, base.height],
        "size_mm": None if um is None else [base.width * um / UM_PER_MM, base.height * um / UM_PER_MM],
        "mpp": um,
        "bounds": _bounds(facts),
        "levels": [
            {
                "size_px": [level.width, level.height],
                "downsample": level.downsample,
                "mpp": None if um is None else um * level.downsample,
            }
            for level in facts.levels
        ],
        "bytes": path.stat().st_size,
        "fingerprint": mark,
    }


def _bounds(facts: SlideInfo) -> dict[str, int] | None:
    box = facts.bounds
    return None if box is None else {"x": box.col, "y": box.row, "width": box.width, "height": box.height}


def model_facts(model: str) -> dict[str, Any]:
    """Return a model's card with its file and SHA-256, in plain values.

    Parameters
    ----------
    model : str
        A model file or the name of an installed model.

    Raises
    ------
    ModelError
        If it is no model file, or one without a card.
    """
    from nuclix.engine.inference.model_file import find_model, model_hash, read_card
    from nuclix.engine.parameters import as_mapping

    path = find_model(model)
    return {"model": str(path), **as_mapping(read_card(path)), "bytes": path.stat().st_size, "sha256": model_hash(path)}


def _lines(facts: Any, indent: str = "") -> list[str]:
    """Lay nested plain values out as aligned lines."""
    width = max((len(key) for key in facts), default=0)
    lines = []
    for key, value in facts.items():
        head = f"{indent}{_title(key):<{width}}"
        if isinstance(value, dict) and value:
            lines += [head.rstrip(), *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [head.rstrip()]
            lines += [f"{indent}  {index}  {_inline(item)}" for index, item in enumerate(value)]
        else:
            lines.append(f"{head}  {_inline(value)}")
    return lines


def _inline(value: Any) -> str:
    """Return one value in one line."""
    if value is None or value in ({}, []):
        return "not stated"
    if isinstance(value, dict):
        return ", ".join(f"{_title(key)} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list):
        return (" x " if all(isinstance(item, int | float) for item in value) else ", ").join(map(_inline, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _title(key: str) -> str:
    return key.replace("_per_", "/").replace("_", " ")
