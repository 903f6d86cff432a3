"""The entry point: parse, hand over to a command, and turn what it raises into a message and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from nuclix.engine.cli.streams import stderr_line
from nuclix.engine.errors import NuclixError, UsageError
from nuclix.engine.operating_system import unsupported

# Each is a module of this package; a command line that begins with one imports only that.
COMMANDS = (
    *("run", "check", "status", "report", "view", "export", "qupath", "overlay", "tissue", "config", "demo"),
    *("simulate", "prepare", "train", "experiment", "evaluate", "pack", "info", "bench", "plugins", "completion"),
)

FAILED = 1
USAGE = 2  # argparse's own
BUG = 70  # EX_SOFTWARE of sysexits.h: not to be taken for "some slide failed"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED = 141  # 128 + SIGPIPE

PLEA = "this is a bug in nuclix or a plugin: please report it with the lines above and the command that you gave"


EPILOG = """\
examples:
  nuclix demo                                  try it on a synthetic slide
  nuclix check slides/ --out results           what a run would do with each slide, in seconds
  nuclix run slides/ --out results             every slide of a folder, one GeoJSON each
  nuclix evaluate results truth --json s.json  score results against a truth

exit codes: 0 all done, 1 something failed (the message says what), 2 wrong usage
"""


class _Version(argparse.Action):
    """Look the version up only when it is asked for: every command would pay for reading the metadata."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"nuclix {version('nuclix')}")
        parser.exit()


# argparse's indentation of a command and the space before its help.
_HELP_GAP = 6


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves room for the longest name of a command, so that each has its help on one line."""

    def __init__(self, prog: str) -> None:
        position = max(map(len, COMMANDS)) + _HELP_GAP
        super().__init__(prog, max_help_position=position)
        self._action_max_length = position - 2  # argparse forgets the commands' own indentation


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the command line, or of some of its commands."""
    parser = argparse.ArgumentParser(
        prog="nuclix",
        description="Find every nucleus of whole-slide images and write a GeoJSON that QuPath opens.",
        epilog=EPILOG,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        import_module(f"nuclix.engine.cli.{command}").add_parser(subparsers)
    return parser


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; all commands are only looked at where it begins with none of them."""
    first = argv[0] if argv else ""
    if first == "bench":
        from nuclix.engine.cli.bench_parts import joined

        argv = joined(argv)
    return build_parser((first,) if first in COMMANDS else COMMANDS).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 done, 1 something failed, 2 wrong usage, 70 a bug, 130 interrupted.
    """
    reason = unsupported()
    if reason is not None:
        return _complain(f"error: {reason}", USAGE)
    open_standard_streams()
    args = _parsed(sys.argv[1:] if argv is None else argv)
    return guarded(args.command, args)


def open_standard_streams() -> None:
    """Connect closed streams (``nuclix ... >&-``) to the null device, before another file takes their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def guarded(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run `command` and translate what it raises.

    Parameters
    ----------
    command : callable
        Takes the parsed arguments, returns an exit code.
    args : Namespace
        The parsed arguments.

    Returns
    -------
    int
        The command's exit code, or the one that its exception stands for.
    """
    try:
        code = command(args)
        sys.stdout.flush()  # a reader that has gone shows here, not in a message at interpreter exit
        return code
    except BrokenPipeError:
        # Python flushes stdout once more while it exits; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except NuclixError as error:
        return _complain(f"error: {error}", USAGE if isinstance(error, UsageError) else FAILED)
    except Exception as error:  # noqa: BLE001 - the last resort, which shows the whole traceback
        if isinstance(error, OSError) and error.errno is not None:
            where = f"{error.filename}: " if error.filename is not None else ""
            return _complain(f"error: {where}{error.strerror}{_gone_folder()}", FAILED)
        traceback.print_exc()
        return _complain(PLEA, BUG)


def _gone_folder() -> str:
    """Return a remark if the current folder was deleted, which makes all relative paths fail; else an empty string."""
    try:
        os.getcwd()  # noqa: PTH109 (Path.cwd does the same)
    except OSError:
        return "; the current folder was deleted: change to another one"
    return ""


def _complain(message: str, code: int) -> int:
    with suppress(OSError):  # a stderr that is full or gone changes nothing about the exit code
        stderr_line(f"nuclix: {message}")
    return code
