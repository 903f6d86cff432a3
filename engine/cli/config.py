"""``nuclix config``: the effective configuration as TOML that can be fed back."""

from __future__ import annotations

import argparse

from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.config_file import config_as_toml


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "config",
        help="print the configuration of a run as TOML",
        description="Print what a run with these options would use, as commented TOML for `nuclix run --config FILE`.",
    )
    add_options(parser)
    parser.set_defaults(command=print_config)


def print_config(args: argparse.Namespace) -> int:
    """Print it."""
    print(config_as_toml(config_of(args)), end="")
    return 0
