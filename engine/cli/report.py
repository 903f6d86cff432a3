"""``nuclix report``: make an output folder's report again, at any time."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="make the report of an output folder",
        description="Make report.html of an output folder, also during a run or after it was killed.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the page there (OUT/report.html)")
    parser.set_defaults(command=make_report)


def make_report(args: argparse.Namespace) -> int:
    """Write the page and say where."""
    from nuclix.engine.errors import OutputError
    from nuclix.engine.report.page import write_report

    target: Path = args.to or args.out / "report.html"
    try:
        write_report(args.out, target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written: {error.strerror}") from error
    print(target)
    return 0
