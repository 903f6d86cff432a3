"""``nuclix check``: what a run would do, in seconds and without the network."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.cli.streams import stdout_line
from nuclix.engine.run_config import RunConfig

if TYPE_CHECKING:
    from nuclix.engine.batch.check import RunForecast, SlideForecast

SOME_REFUSED = 1
# Stands for the output folder where none is given: nothing is written.
_NO_FOLDER = "nuclix-results"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="list what a run would do with each slide, without running it",
        description="Open every slide and list its reader, size, scale and what `nuclix run` with the same options "
        "would do with it: compute, resume, skip, recompute or refuse. Nothing is computed or written.",
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=check_command)


def check_command(args: argparse.Namespace) -> int:
    """Run the command; return 0 if every slide can be processed, else 1."""
    config = config_of(args)
    return show_forecast(config if config.out else replace(config, out=_NO_FOLDER), as_json=args.json)


def show_forecast(config: RunConfig, *, as_json: bool = False) -> int:
    """Print what a run would do.

    Parameters
    ----------
    config : RunConfig
        With slides and output folder.
    as_json : bool
        Whether to print JSON.

    Returns
    -------
    int
        Exit code: 0 if every slide can be processed, else 1.
    """
    from nuclix.engine.batch.check import REFUSED, STALE, forecast

    config.check_complete()
    found = forecast(config)
    if as_json:
        stdout_line(json.dumps(asdict(found), indent=2))
    else:
        for line in forecast_lines(found):
            stdout_line(line)
    blocking = {REFUSED} if config.recompute is not None else {REFUSED, STALE}
    return SOME_REFUSED if any(slide.action in blocking for slide in found.slides) else 0


def forecast_lines(found: RunForecast) -> list[str]:
    """Return a forecast as a table, what is passed over, and a summary."""
    from nuclix.engine.batch.check import STALE
    from nuclix.engine.progress.text import duration, one_line

    header = ("action", "slide", "reader", "size (px)", "um/px", "scale from", "tiles", "time")
    table = [header, *(_cells(slide) for slide in found.slides)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row, slide in zip(table, (None, *found.slides), strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if slide is not None and slide.reason:
            lines.append(f"{' ' * (widths[0] + 2)}{one_line(slide.reason)}")
    counts = Counter(slide.action for slide in found.slides)
    seconds = [slide.seconds for slide in found.slides if slide.seconds is not None]
    expected = f"; at most {duration(sum(seconds))} on one device" if seconds else ""
    lines += found.passed_over
    lines.append(
        f"{len(found.slides)} slides: {', '.join(f'{count} {name}' for name, count in counts.items())}{expected}"
    )
    if counts[STALE]:
        lines.append("recompute: `nuclix run` stops here unless --recompute or --no-recompute is given")
    return lines


def _cells(slide: SlideForecast) -> tuple[str, ...]:
    from nuclix.engine.progress.text import duration, grouped, one_line

    opened = slide.width > 0
    return (
        slide.action,
        one_line(slide.name),
        slide.reader or "-",
        f"{slide.width} x {slide.height}" if opened else "-",
        "-" if slide.mpp is None else f"{slide.mpp:.4g}",
        slide.mpp_source or "-",
        grouped(slide.tiles) if slide.tiles else "-",
        "-" if slide.seconds is None else duration(slide.seconds),
    )
