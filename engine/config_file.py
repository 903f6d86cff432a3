"""The configuration of a run as a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nuclix.engine.errors import UsageError
from nuclix.engine.files import read_bounded
from nuclix.engine.option_spec import OptionSpec
from nuclix.engine.parameters import from_mapping
from nuclix.engine.run_config import RunConfig, option_specs

_MAX_BYTES = 10_000_000  # longer files are no configuration
_HEADER = """\
# Configuration of a run: nuclix run --config FILE
# Options on the command line override this file. Paths are relative to the current directory.
"""


def read_config(path: Path) -> RunConfig:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
        The file; options that it does not name keep their defaults.

    Returns
    -------
    RunConfig

    Raises
    ------
    UsageError
        If the file can't be read or is no TOML, a key is unknown, or a value has the wrong type or is not allowed;
        the message names file and key.
    """
    import tomllib

    try:
        values = tomllib.loads(read_bounded(path, _MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: the configuration can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UsageError(f"{path}: not TOML: {error}") from error
    return from_mapping(RunConfig, _renamed(values), str(path), UsageError)


def config_as_toml(config: RunConfig) -> str:
    """Write a configuration as TOML with a comment to each option; `read_config` gives the same one back.

    Parameters
    ----------
    config : RunConfig
        Any.

    Returns
    -------
    str
        Options that are unset stand as comments.

    Raises
    ------
    UsageError
        If a file name is no Unicode, which TOML can't hold.
    """
    lines = [_HEADER]
    group = ""
    for item in option_specs():
        if item.group != group:
            group = item.group
            lines += [f"# ---- {group} ----", ""]
        value = getattr(config, item.name)
        lines.append(f"# {item.help}{_default_note(item, value)}")
        if item.choices:
            lines.append(f"# one of {', '.join(item.choices)}")
        lines += [f"# {item.name} = {item.metavar}" if value is None else f"{item.name} = {_toml(value)}", ""]
    text = "\n".join(lines)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a TOML file can't hold a file name that is no Unicode: {error.object!r}") from error
    return text


def _default_note(item: OptionSpec, value: Any) -> str:
    if value is None:
        return " (not set)"
    required = item.default is None or item.default == ()
    return "" if required or value == item.default else f" (by default {_toml(item.default)})"


def _toml(value: Any) -> str:
    """Return a plain value in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        # JSON's escapes are TOML's, but for the one control character that JSON does not escape.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a file with former option names replaced."""
    present = {alias: spec for spec in option_specs() for alias in spec.aliases}
    renamed = {}
    for key, value in values.items():
        spec = present.get(key)
        single = spec is not None and spec.type is tuple and isinstance(value, str)  # a list now, one value formerly
        renamed[spec.name if spec else key] = [value] if single else value
    return renamed
