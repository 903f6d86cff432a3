"""``nuclix export``: write the nuclei of finished slides in further formats."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FAILED = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="write finished slides in further formats",
        description="Write the nuclei of all finished slides of an output folder in further formats. Nothing is "
        "computed again: the objects are read from where the run has stored them.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument(
        "--format", required=True, metavar="NAME,NAME", help="formats, such as csv,parquet (see `nuclix plugins`)"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="write the files there (default: OUT)")
    parser.add_argument(
        "--tissue-annotations",
        action="store_true",
        help="add tissue outlines with their number of nuclei per mm2 to GeoJSON files",
    )
    parser.set_defaults(command=export)


def export(args: argparse.Namespace) -> int:
    """Write the files; return 1 if a slide failed."""
    from nuclix.engine.batch.export import ExportRequest, export_folder
    from nuclix.engine.batch.index import write_index

    formats = tuple(filter(None, args.format.split(",")))
    request = ExportRequest(args.out, formats, args.tissue_annotations, args.to)
    summary = export_folder(request, lambda name: print(f"{name}: done", flush=True))
    if args.to is None:
        write_index(args.out)
    for name, reason in summary.failed.items():
        sys.stderr.write(f"nuclix: {name}: {reason}\n")
    files = sum(map(len, summary.written.values()))
    print(f"{files} files of {len(summary.written)} slides in {args.to or args.out}")
    return FAILED if summary.failed else 0
