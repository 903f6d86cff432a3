"""The configuration of a run: the one list of options, from which command line, TOML file and records are made."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.device import PRECISIONS
from nuclix.engine.errors import UsageError
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.settings import DEFAULT_BLOCK, DEFAULT_MODEL, PATIENCE, RunSettings, default_workers

if TYPE_CHECKING:
    from nuclix.engine.batch import BatchOptions

_SLIDES = "slides and results"
_MODEL = "model"
_MACHINE = "machine"
_NIGHT = "what may go wrong in a night"
_SHOWN = "what is shown"

_HEADER = """\
# Configuration of a run: nuclix run --config FILE
# What is given on the command line wins over this file. Paths are relative to the folder where nuclix is started.
"""


@dataclass(frozen=True, slots=True)
class Option:
    """What is said of a field of `RunConfig`.

    Attributes
    ----------
    group : str
        The heading under which it is listed.
    help : str
        One line.
    metavar : str
        Stands for the value in usage lines; empty for flags.
    choices : tuple of str
        The only values, or empty for any.
    minimum, above : float or None
        Bounds of a number: the first one allowed, the last one refused.
    """

    group: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None

    def check(self, value: Any) -> None:
        """Raise `ValueError` if a value of the right type is not allowed."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value}")
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"must be {self.minimum:g} or more, not {value}")
        if self.above is not None and value <= self.above:
            raise ValueError(f"must be more than {self.above:g}, not {value}")


def _of(option: Option) -> dict[str, Option]:
    """Return the metadata of a field."""
    return {"option": option}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every option of ``nuclix run``; a field's metadata says what it means."""

    inputs: tuple[str, ...] = field(
        default=(), metadata=_of(Option(_SLIDES, "slides, folders of slides, or patterns", "INPUT"))
    )
    out: str | None = field(default=None, metadata=_of(Option(_SLIDES, "output folder", "DIR")))
    writer: str = field(
        default="geojson", metadata=_of(Option(_SLIDES, "format of the results (see `nuclix plugins`)", "NAME"))
    )
    mpp: float | None = field(
        default=None,
        metadata=_of(Option(_SLIDES, "um/px of the full resolution, for slides that do not say it", "UM", above=0)),
    )
    tissue: bool = field(default=True, metadata=_of(Option(_SLIDES, "leave glass out")))
    model: str = field(
        default=DEFAULT_MODEL, metadata=_of(Option(_MODEL, "installed model or model file", "NAME|FILE"))
    )
    precision: str = field(
        default="auto", metadata=_of(Option(_MODEL, "arithmetic of the network", "TYPE", choices=PRECISIONS))
    )
    flips: bool = field(
        default=False,
        metadata=_of(Option(_MODEL, "average the maps of four mirror images: better outlines, a quarter of the speed")),
    )
    device: str = field(default="auto", metadata=_of(Option(_MACHINE, "auto, cpu, cuda or cuda:N", "DEVICE")))
    devices: tuple[str, ...] = field(
        default=(),
        metadata=_of(Option(_MACHINE, "a worker process for each, such as cuda:0,cuda:1 (in place of device)", "D,D")),
    )
    scheduler: str | None = field(
        default=None,
        metadata=_of(
            Option(_MACHINE, "a Dask cluster that does the work, such as tcp://HOST:8786, in place of devices", "URL")
        ),
    )
    batch: int | None = field(
        default=None, metadata=_of(Option(_MACHINE, "patches a forward pass (what suits the device)", "N", minimum=1))
    )
    block: int = field(
        default=DEFAULT_BLOCK, metadata=_of(Option(_MACHINE, "edge of a post-processing block", "PX", minimum=1))
    )
    workers: int = field(
        default_factory=default_workers,
        metadata=_of(Option(_MACHINE, "threads for reading and post-processing", "N", minimum=1)),
    )
    retry: int = field(
        default=0, metadata=_of(Option(_NIGHT, "try a slide that failed again up to N times", "N", minimum=0))
    )
    fail_fast: bool = field(default=False, metadata=_of(Option(_NIGHT, "end the run at the first slide that fails")))
    time_limit: float | None = field(
        default=None, metadata=_of(Option(_NIGHT, "have ended after S seconds, cleanly", "S", above=0))
    )
    patience: float = field(
        default=PATIENCE,
        metadata=_of(
            Option(_NIGHT, "give up a slide whose worker has not come any further for S seconds", "S", above=0)
        ),
    )
    quiet: bool = field(default=False, metadata=_of(Option(_SHOWN, "say nothing but what failed")))
    json_log: str | None = field(
        default=None,
        metadata=_of(Option(_SHOWN, "append one JSON object an event to FILE; - is stderr, in place of text", "FILE")),
    )

    def __post_init__(self) -> None:
        for item in setup():
            try:
                item.option.check(getattr(self, item.name))
            except ValueError as error:
                raise ValueError(f"key {item.name!r} {error}") from None


@dataclass(frozen=True, slots=True)
class Setup:
    """A field of `RunConfig` as command line and file need it.

    Attributes
    ----------
    name : str
        The field, and its key in a file.
    option : Option
        What is said of it.
    type : type
        bool, int, float, str, or tuple for several strings.
    optional : bool
        Whether it may be left unset.
    default : object
        Its value where nothing is said.
    """

    name: str
    option: Option
    type: type
    optional: bool
    default: Any


def setup() -> Iterator[Setup]:
    """Yield every option in the order in which they are listed."""
    hints = typing.get_type_hints(RunConfig)
    for item in fields(RunConfig):
        inner = [hint for hint in typing.get_args(hints[item.name]) if hint not in (type(None), Ellipsis)]
        kind = typing.get_origin(hints[item.name]) or hints[item.name]
        optional = type(None) in typing.get_args(hints[item.name])
        default = item.default if item.default_factory is MISSING else item.default_factory()
        yield Setup(item.name, item.metadata["option"], inner[0] if optional else kind, optional, default)


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
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: the configuration can't be read: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both of this kind
        raise UsageError(f"{path}: not TOML: {error}") from error
    return from_mapping(RunConfig, values, str(path), UsageError)


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
    for item in setup():
        if item.option.group != group:
            group = item.option.group
            lines += [f"# ---- {group} ----", ""]
        value = getattr(config, item.name)
        lines.append(f"# {item.option.help}{_default_note(item, value)}")
        if item.option.choices:
            lines.append(f"# one of {', '.join(item.option.choices)}")
        lines += [f"# {item.name} = {item.option.metavar}" if value is None else f"{item.name} = {_toml(value)}", ""]
    text = "\n".join(lines)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a TOML file can't hold a file name that is no Unicode: {error.object!r}") from error
    return text


def _default_note(item: Setup, value: Any) -> str:
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


def run_settings(config: RunConfig) -> RunSettings:
    """Return what is done to each slide; it carries the whole configuration for the slides' records.

    Parameters
    ----------
    config : RunConfig
        The configuration of the run.

    Raises
    ------
    UsageError
        If it lacks the slides or the output folder.
    """
    if not config.inputs:
        raise UsageError("no slides: name files or folders on the command line, or as `inputs` in the configuration")
    if not config.out:
        raise UsageError("no output folder: give --out DIR, or `out` in the configuration")
    return RunSettings(
        out=Path(config.out),
        model=config.model,
        mpp=config.mpp,
        device=config.device,
        precision=config.precision,
        flips=config.flips,
        batch=config.batch,
        block=config.block,
        workers=config.workers,
        tissue=config.tissue,
        writer=config.writer,
        config=config_as_json(config),
    )


def config_as_json(config: RunConfig) -> Mapping[str, Any]:
    """Return the configuration as plain JSON values."""
    return as_mapping(config)


def batch_options(config: RunConfig) -> BatchOptions:
    """Return how the batch is run.

    Parameters
    ----------
    config : RunConfig
        The configuration of the run.
    """
    from nuclix.engine.batch import BatchOptions

    return BatchOptions(
        devices=config.devices or (config.device,),
        retry=config.retry,
        fail_fast=config.fail_fast,
        time_limit=config.time_limit,
        patience=config.patience,
        scheduler=config.scheduler,
    )
