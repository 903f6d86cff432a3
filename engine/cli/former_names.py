"""Former names of options: they still work for one release, with a line that names the present one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any


class FormerName(argparse.Action):
    """Sets an option by a former name and says what it is called now."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Write the line, then store the value."""
        negated = str(option).startswith("--no-")
        now = flag_of(f"no-{self.dest}" if negated else self.dest)
        sys.stderr.write(f"{parser.prog}: {option} is deprecated; use {now}\n")
        setattr(namespace, self.dest, not negated if self.nargs == 0 else values)


def add_former_name(parser: argparse.ArgumentParser, former: str, name: str, kind: Callable[[str], Any]) -> None:
    """Accept ``--former`` for an option whose values `kind` reads; the option itself must have been added before."""
    parser.add_argument(
        flag_of(former), action=FormerName, dest=name, type=kind, help=argparse.SUPPRESS, default=argparse.SUPPRESS
    )


def flag_of(name: str) -> str:
    """Return the flag of an option.

    >>> flag_of("time_limit")
    '--time-limit'
    """
    return f"--{name.replace('_', '-')}"
