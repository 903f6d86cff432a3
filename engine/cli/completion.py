"""``nuclix completion``: a script that completes commands, options and file names in a shell."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "tcsh")
EPILOG = """\
for this shell only:   source <(nuclix completion bash)
for every new shell:   nuclix completion bash > ~/.local/share/bash-completion/completions/nuclix
with zsh:              nuclix completion zsh > "${fpath[1]}/_nuclix"
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="print a shell completion script",
        description="Print a script that completes commands, options and file names of nuclix.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(command=completion)


def completion(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from nuclix.engine.cli.main import build_parser

    parser = build_parser()
    _complete_files(parser)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Complete file names for arguments that take one, which the names of their values tell."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif str(action.metavar).startswith("DIR"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif any(word in str(action.metavar) for word in ("FILE", "INPUT", "SLIDE")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
