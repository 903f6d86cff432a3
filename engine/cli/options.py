"""The options of a run on the command line, made from the fields of `RunConfig`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nuclix.engine.cli.former_names import FormerName, flag_of
from nuclix.engine.config_file import read_config
from nuclix.engine.option_spec import OptionSpec
from nuclix.engine.run_config import RunConfig, option_specs

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
        "--config", metavar="FILE", help="TOML file of options; the command line takes precedence (see `nuclix config`)"
    )
    groups: dict[str, Any] = {}
    for spec in option_specs():
        if spec.name in without:
            continue
        if spec.group not in groups:
            groups[spec.group] = parser.add_argument_group(spec.group)
        _add(groups[spec.group], spec)
        for alias in spec.aliases:
            _add_alias(groups[spec.group], spec, alias)


def _add(group: Any, spec: OptionSpec) -> None:
    text, default = spec.help, argparse.SUPPRESS
    if spec.name == "inputs":
        group.add_argument(spec.name, nargs="*", metavar=spec.metavar, help=text, default=default)
        return
    flag = flag_of(spec.name)
    if spec.type is bool:
        text = f"{text} (default: {'yes' if spec.default else 'no'})"
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, default=default)
        return
    if spec.default is not None and spec.default != ():
        default_text = ",".join(spec.default) if spec.type is tuple else spec.default
        text = f"{text} (default: {default_text})"
    metavar = spec.metavar or "|".join(spec.choices)
    shown = text.replace("%", "%%")
    if spec.repeated:
        group.add_argument(flag, action="append", metavar=metavar, help=shown, default=default)
    else:
        group.add_argument(flag, type=_parser_of(spec), metavar=metavar, help=shown, default=default)


def _add_alias(group: Any, spec: OptionSpec, alias: str) -> None:
    """Accept a former name of an option, with a word about the present one."""
    flags = [flag_of(alias), f"--no-{alias.replace('_', '-')}"] if spec.type is bool else [flag_of(alias)]
    kind = None if spec.type is bool else _parser_of(spec)
    for flag in flags:
        nargs = 0 if spec.type is bool else None
        group.add_argument(
            flag, action=FormerName, dest=spec.name, type=kind, nargs=nargs, help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )  # fmt: skip


def _parser_of(item: OptionSpec) -> Callable[[str], Any]:
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
            item.check(value)
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
    given = {item.name: getattr(args, item.name) for item in option_specs() if hasattr(args, item.name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if "device" in given:
        given.setdefault("devices", ())  # the file's `devices` do not overrule the command line's --device
    return replace(base, **given)
