"""Frozen dataclasses from values that a user or a file gave, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nuclix.engine.errors import NuclixError, UsageError

T = TypeVar("T")
_MAX_INT = 2**31 - 1  # counts and lengths; kernels take no larger ones
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def as_mapping(instance: Any) -> dict[str, Any]:
    """Return a dataclass's fields as plain JSON values (dict, list, str, numbers, bool, None).

    Parameters
    ----------
    instance : dataclass instance
        Its fields hold plain values, sequences, mappings or other dataclasses.

    Returns
    -------
    dict
        Field name to value, in the order of the fields.
    """
    return {field.name: _plain(getattr(instance, field.name)) for field in dataclasses.fields(instance)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_mapping(cls: type[T], mapping: Any, where: str, error: type[NuclixError] = NuclixError) -> T:
    """Build the dataclass `cls` from untrusted values.

    Parameters
    ----------
    cls : type
        A dataclass whose fields are int, float, str, bool, tuples of those, mappings, other dataclasses, or unions
        with None.
    mapping : mapping
        Field name to value, as JSON or TOML gives it.
    where : str
        What the values are, for the message: "model.toml", "recipe dist".
    error : type
        The exception to raise.

    Returns
    -------
    cls
        The instance.

    Raises
    ------
    error
        If `mapping` is not a table, a key is unknown or missing, a value has the wrong type, or the dataclass
        itself refuses it; the message names the key.
    """
    if not isinstance(mapping, Mapping):
        raise error(f"{where}: expected a table of values, found {_name(mapping)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = [str(key) for key in mapping if key not in fields]
    if unknown:
        raise error(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in mapping and _is_required(field)]
    if missing:
        raise error(f"{where}: missing key {', '.join(map(repr, missing))}")
    hints = typing.get_type_hints(cls)
    values = {name: _typed(hints[name], value, f"{where}, key {name!r}", error) for name, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as problem:
        raise error(f"{where}: {problem}") from problem


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _name(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _typed(hint: Any, value: Any, where: str, error: type[NuclixError]) -> Any:
    """Return `value` as the type `hint` says, or raise `error`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        hint = next(item for item in inner if item is not type(None))
        return _typed(hint, value, where, error)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where, error)
    if origin is tuple:
        return _typed_tuple(inner, value, where, error)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise error(f"{where}: expected a table, found {_name(value)}")
        return dict(value)
    return value if hint is Any else _typed_scalar(hint, value, where, error)


def _typed_tuple(inner: tuple[Any, ...], value: Any, where: str, error: type[NuclixError]) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise error(f"{where}: expected a list, found {_name(value)}")
    if len(inner) == 2 and inner[1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise error(f"{where}: expected {len(inner)} values, found {len(value)}")
    return tuple(_typed(hint, item, where, error) for hint, item in zip(inner, value, strict=True))


def _typed_scalar(hint: type, value: Any, where: str, error: type[NuclixError]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        if isinstance(value, int) and not -_MAX_INT <= value <= _MAX_INT:
            raise error(f"{where}: {value} does not fit into 32 bits")
        return value
    raise error(f"{where}: expected {hint.__name__}, found {_name(value)}")


def assignments(texts: Sequence[str], cls: type, where: str) -> dict[str, Any]:
    """Read ``name=value`` words of a command line into values of the types that `cls`'s fields have.

    Parameters
    ----------
    texts : sequence of str
        Such as ``["n_feat=16", "stem=1"]``.
    cls : type
        The dataclass that they are for.
    where : str
        What it is, for the message.

    Returns
    -------
    dict
        Field name to value, ready for `from_mapping`.

    Raises
    ------
    UsageError
        If a word has no ``=``, names no field or can't be read as the field's type.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for text in texts:
        name, sign, word = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or name not in known:
            raise UsageError(f"{where}: {text!r} is not NAME=VALUE with NAME one of {', '.join(known)}")
        values[name] = _from_word(hints[name], word.strip(), f"{where}, {name!r}")
    return values


def _from_word(hint: Any, word: str, where: str) -> Any:
    if hint is bool:
        if word.lower() not in _WORDS:
            raise UsageError(f"{where}: expected true or false, found {word!r}")
        return _WORDS[word.lower()]
    if hint in (int, float):
        try:
            return hint(word)
        except ValueError:
            raise UsageError(f"{where}: expected {hint.__name__}, found {word!r}") from None
    if hint is not str:
        raise UsageError(f"{where}: can't be set from the command line")
    return word
