"""``nuclix view``: slides and outlines of an output folder in the browser, at any zoom."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.streams import stdout_line
from nuclix.engine.errors import UsageError

if TYPE_CHECKING:
    from nuclix.engine.viewer.catalogue import Catalogue
    from nuclix.engine.viewer.server import ViewerServer

PORT = 8470
MAX_PORT = 65_535


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "view",
        help="look at slides and outlines in the browser",
        description="Show the slides of an output folder with their outlines in the browser, at any zoom. The server "
        "answers this machine only and writes nothing; Ctrl-C ends it.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument(
        "--port", type=_port, metavar="N", help=f"port on 127.0.0.1; 0 for any (default: {PORT}, or any if it is taken)"
    )
    parser.add_argument(
        "--slides",
        type=Path,
        metavar="DIR",
        help="folder in which the slides lie now (default: where they were)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")
    parser.set_defaults(command=view)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def _server(catalogue: Catalogue, port: int | None) -> ViewerServer:
    """Return the server on the port that was asked for; without one, on the usual port or one that is free."""
    from nuclix.engine.viewer.server import ViewerServer

    if port is not None:
        return ViewerServer(catalogue, port)
    try:
        return ViewerServer(catalogue, PORT)
    except UsageError:
        return ViewerServer(catalogue)


def view(args: argparse.Namespace) -> int:
    """Run the command until it is interrupted; return its exit code."""
    from nuclix.engine.viewer.catalogue import Catalogue

    if args.slides is not None and not args.slides.is_dir():
        raise UsageError(f"--slides {args.slides}: is not a folder")
    catalogue = Catalogue(args.out, args.slides)
    server = _server(catalogue, args.port)
    stdout_line(f"{args.out}: open {server.url} (Ctrl-C ends)")
    if args.open:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        server.server_close()
        catalogue.close()
    return 0
