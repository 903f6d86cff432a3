"""The options of a run on the command line, made from the fields of `RunConfig`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nuclix.engine.config import RunConfig, Setup, read_config, setup

# Takes back what the configuration file says of an option that may be unset.
UNSET = "none"


def add_options(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """Add ``--config`` and every option of a run; what is not given is left out of the parsed arguments.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command.
    without : sequence of str
        Fields of `RunConfig` that the command does not have.
    """
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file of options; the command line wins over it (see `nuclix config`)"
    )
    groups: dict[str, Any] = {}
    for item in setup():
        if item.name in without:
            continue
        group = item.option.group
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        _add(groups[group], item)


def _add(group: Any, item: Setup) -> None:
    text, default = item.option.help, argparse.SUPPRESS
    if item.name == "inputs":
        group.add_argument(item.name, nargs="*", metavar=item.option.metavar, help=text, default=default)
        return
    flag = f"--{item.name.replace('_', '-')}"
    if item.type is bool:
        action = argparse.BooleanOptionalAction
        group.add_argument(flag, action=action, help=f"{text} ({'yes' if item.default else 'no'})", default=default)
        return
    if item.default is not None and item.default != ():
        text = f"{text} ({item.default})"
    metavar = "|".join(item.option.choices) or item.option.metavar
    group.add_argument(flag, type=_parser_of(item), metavar=metavar, help=text.replace("%", "%%"), default=default)


def _parser_of(item: Setup) -> Callable[[str], Any]:
    """Return what turns a word into the option's value."""

    def parse(word: str) -> Any:
        if item.optional and word == UNSET:
            return None
        try:
            value = tuple(filter(None, word.split(","))) if item.type is tuple else item.type(word)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}[item.type]
            raise argparse.ArgumentTypeError(f"must be {kind}, not {word!r}") from None
        try:
            item.option.check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return parse


def config_of(args: argparse.Namespace) -> RunConfig:
    """Return the effective configuration: command line over file over defaults.

    Parameters
    ----------
    args : Namespace
        From a parser that `add_options` has seen.

    Raises
    ------
    UsageError
        If the file can't be used; the message names file and key.
    """
    base = read_config(Path(args.config)) if args.config else RunConfig()
    given = {item.name: getattr(args, item.name) for item in setup() if hasattr(args, item.name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(base, **given)
