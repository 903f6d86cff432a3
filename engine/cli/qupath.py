"""``nuclix qupath``: a QuPath project of an output folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "qupath",
        help="make a QuPath project of finished slides",
        description="Make a QuPath project of all finished slides of an output folder, or add slides to one. Open it, "
        "choose Automate > Project scripts > import-nuclei, then Run > Run for project.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument("--project", type=Path, required=True, metavar="DIR", help="folder of the project")
    parser.add_argument(
        "--image-type", default="", metavar="TYPE", help="type for images without one, such as BRIGHTFIELD_H_E"
    )
    parser.add_argument(
        "--resolve-hierarchy", action="store_true", help="put nuclei under the annotations that contain them"
    )
    parser.add_argument(
        "--headless-command", action="store_true", help="print the command that imports the nuclei without a window"
    )
    parser.set_defaults(command=make_project)


def make_project(args: argparse.Namespace) -> int:
    """Write the project and say what comes next."""
    from nuclix.engine.batch.index import write_index
    from nuclix.engine.errors import UsageError
    from nuclix.engine.qupath.project import IMAGE_TYPES, ProjectOptions, headless_command, write_project

    if args.image_type and args.image_type not in IMAGE_TYPES:
        raise UsageError(f"--image-type must be one of {', '.join(IMAGE_TYPES)}, not {args.image_type!r}")
    summary = write_project(
        write_index(args.out), args.project, ProjectOptions(args.image_type, args.resolve_hierarchy)
    )
    for name in summary.without_result:
        sys.stderr.write(f"nuclix: {name}: has no file for QuPath; nuclix export {args.out} --format auto\n")
    if args.headless_command:
        print(headless_command(summary))
        return 0
    print(f"{summary.project}: {summary.added} images added, {summary.present} were there")
    print("open it in QuPath, choose Automate > Project scripts > import-nuclei, then Run > Run for project")
    return 0
