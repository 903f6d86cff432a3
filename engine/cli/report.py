"""``nuclix report``: make an output folder's report and the pages of its slides again, at any time."""

from __future__ import annotations

import argparse
from pathlib import Path

from nuclix.engine.cli.streams import stderr_line
from nuclix.engine.errors import UsageError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="make the report of an output folder",
        description="Make report.html of an output folder and a page for each finished slide, also during a run or "
        "after it was killed. Pages that are up to date are kept.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument(
        "--to", type=Path, metavar="FILE",
        help="write the report there, and the slides' pages to a folder next to it (default: OUT/report.html)",
    )  # fmt: skip
    parser.add_argument(
        "--slides", type=Path, metavar="DIR", help="folder in which the slides lie now (default: where they were)"
    )
    parser.add_argument("--no-slide-pages", action="store_true", help="make the report alone")
    parser.set_defaults(command=make_report)


def make_report(args: argparse.Namespace) -> int:
    """Write the pages and say where the report is."""
    from nuclix.engine.errors import OutputError
    from nuclix.engine.report.collect import collect
    from nuclix.engine.report.page import write_report
    from nuclix.engine.report.slide_pages import write_slide_pages

    target: Path = args.to or args.out / "report.html"
    if args.slides is not None and not args.slides.is_dir():
        raise UsageError(f"--slides {args.slides}: is not a folder")
    try:
        if not args.no_slide_pages and not target.is_char_device():
            summary = write_slide_pages(collect(args.out), target, slides=args.slides)
            for name, problem in summary.failed.items():
                stderr_line(f"nuclix: warning: page of {name}: {problem}")
        write_report(args.out, target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written: {error.strerror}") from error
    print(target)
    return 0
