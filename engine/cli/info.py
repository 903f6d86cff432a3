"""``nuclix info``: show the metadata of slides and model files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclix.engine.batch.isolated import SlideInspector
    from nuclix.engine.contracts import SlideInfo

MODEL_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript", ".pt2", ".onnx")
UM_PER_MM = 1000.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "info",
        help="show the metadata of slides and model files",
        description="Show a slide's size, levels and scale, and what `nuclix run` would do with it; or a model's card: "
        "data, licence, scores, parameters.",
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a slide, a model file, or the name of an installed model"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an object, or a list of them for several files"
    )
    parser.add_argument("--reader", metavar="NAME", help="open slides with this reader (default: chosen by content)")
    parser.set_defaults(command=info)


def info(args: argparse.Namespace) -> int:
    """Print the facts; a file that can't be read does not keep the others from being shown."""
    import json

    from nuclix.engine import registry
    from nuclix.engine.batch.isolated import SlideInspector
    from nuclix.engine.cli.streams import stderr_line, stdout_line
    from nuclix.engine.errors import NuclixError

    models = registry.names(registry.WEIGHTS)
    found: list[dict[str, Any]] = []
    failed = 0
    with SlideInspector() as inspector:
        for file in args.files:
            try:
                is_model = file in models or _looks_like_a_model(Path(file))
                facts = model_facts(file) if is_model else slide_facts(Path(file), inspector, args.reader)
            except NuclixError as error:
                if len(args.files) == 1:
                    raise
                stderr_line(f"nuclix: error: {error}")
                failed += 1
                continue
            found.append(facts)
            if not args.json:
                stdout_line("\n".join(["", *_lines(facts)] if len(found) > 1 else _lines(facts)))
    if args.json:
        print(json.dumps(found if len(args.files) > 1 else found[0], indent=2, ensure_ascii=False))
    return 1 if failed else 0


def _looks_like_a_model(path: Path) -> bool:
    """TorchScript is a zip archive; a file with a model's ending is one too, even if it is damaged."""
    import zipfile

    return path.suffix.lower() in MODEL_SUFFIXES or (path.is_file() and zipfile.is_zipfile(path))


def slide_facts(path: Path, inspector: SlideInspector, reader: str | None = None) -> dict[str, Any]:
    """Return what a slide states about itself, in plain values.

    Parameters
    ----------
    path : Path
        The slide.
    inspector : SlideInspector
        Opens it.
    reader : str or None
        Name of the reader to open it with; None to choose by content.

    Returns
    -------
    dict
        Keys in the order in which they are shown; sizes are (width, height) in px and mm, None where unknown.

    Raises
    ------
    SlideError
        If it can't be opened.
    """
    from nuclix.engine.slide.identity import slide_state
    from nuclix.engine.slide.open import fingerprint

    mark = fingerprint(path)
    found = inspector.inspect(path, reader)
    facts = found.info
    um = facts.scale.mpp if facts.scale is not None else None
    base = facts.levels[0]
    return {
        "slide": str(path),
        "reader": found.reader,
        "vendor": facts.vendor,
        "size_px": [base.width, base.height],
        "size_mm": None if um is None else [base.width * um / UM_PER_MM, base.height * um / UM_PER_MM],
        "mpp": um,
        "mpp_source": facts.scale_source,
        "objective_power": facts.objective_power,
        "compression": facts.compression,
        "bounds": _bounds(facts),
        "levels": [
            {
                "size_px": [level.width, level.height],
                "downsample": level.downsample,
                "mpp": None if um is None else um * level.downsample,
            }
            for level in facts.levels
        ],
        "missing_tiles": found.missing_tiles,
        "icc_profile": _profile(facts.icc_profile),
        "associated_images": list(facts.associated),
        "bytes": slide_state(path).size,
        "fingerprint": mark,
        "run": _plan(facts),
    }


def _plan(facts: SlideInfo) -> str:
    """Return what `nuclix run` with its default model would read, or why it would refuse."""
    from nuclix.engine.errors import SlideError
    from nuclix.engine.inference.model_file import find_model, read_card
    from nuclix.engine.run_config import DEFAULT_MODEL, RunConfig
    from nuclix.engine.slide.open import slide_scale
    from nuclix.engine.slide.scale import check_upsampling
    from nuclix.engine.slide.view import view_plan

    wanted = read_card(find_model(DEFAULT_MODEL)).scale
    try:
        scale = slide_scale(facts)
        check_upsampling(facts, scale, wanted, RunConfig())
    except SlideError as error:
        hint = f"; objective {facts.objective_power:g}x" if facts.objective_power else ""
        return f"refuse it: {str(error).removeprefix(f'{facts.path}: ')}{hint}"
    view = view_plan(facts, wanted, scale)
    how = "as it is" if view.factor == 1 else f"averaged {view.factor:.4g} to 1"
    if view.factor < 1:
        how = f"enlarged 1 to {1 / view.factor:.4g}"
    return (
        f"read level {view.level} {how}: {view.width} x {view.height} px of "
        f"{view.downsample * scale.mpp:.4g} um "
        f"(model {DEFAULT_MODEL}: {wanted.mpp:g} um)"
    )


def _profile(content: bytes | None) -> str | None:
    """Return a colour profile's description and size."""
    import io

    if content is None:
        return None
    from PIL import ImageCms

    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(content))).strip()
    except (OSError, ImageCms.PyCMSError):
        name = "damaged"
    return f"{' '.join(name.split())} ({len(content)} bytes)"


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
    from nuclix.engine.inference.runtime import usual_runtime
    from nuclix.engine.parameters import as_mapping

    path = find_model(model)
    return {
        "model": str(path),
        **as_mapping(read_card(path)),
        "runtime_here": usual_runtime(path),
        "bytes": path.stat().st_size,
        "sha256": model_hash(path),
    }


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
        return ", ".join(
            f"{_title(key)} {_colour(item) if key == 'color' else _inline(item)}" for key, item in value.items()
        )
    if isinstance(value, list):
        return (" x " if all(isinstance(item, int | float) for item in value) else ", ").join(map(_inline, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _colour(value: Any) -> str:
    return ", ".join(map(str, value))


def _title(key: str) -> str:
    return "um/px" if key == "mpp" else key.replace("mpp_", "um/px_").replace("_", " ")
