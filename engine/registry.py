"""Plugins by entry-point name: listed from metadata alone, imported only when one is loaded."""

from __future__ import annotations

import difflib
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, EntryPoints, distributions, entry_points, version
from pathlib import Path
from typing import cast

from nuclix.engine.errors import PluginError

READERS = "nuclix.readers"
POSTPROCESSORS = "nuclix.postprocessors"
RECIPES = "nuclix.recipes"
WRITERS = "nuclix.writers"
WEIGHTS = "nuclix.weights"
MODEL_SOURCES = "nuclix.model_sources"
GROUPS = (READERS, POSTPROCESSORS, RECIPES, WRITERS, WEIGHTS, MODEL_SOURCES)


@dataclass(frozen=True, slots=True, order=True)
class PluginEntry:
    """What a distribution's metadata says of a plugin.

    Attributes
    ----------
    name, group : str
        The name that users type and the entry-point group that it stands in.
    value : str
        Where the object lives: ``package.module:attribute``.
    distribution, version : str
        Who brings it.
    """

    name: str
    group: str
    value: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """The distribution with its version, as messages name it."""
        return f"{self.distribution} {self.version}"


def entries(group: str) -> tuple[PluginEntry, ...]:
    """List the plugins of a group, by name, without importing any of them.

    Two plugins of one name both stand in the list; `names` and `load` refuse them. A distribution that is found
    twice on the path (an editable install next to its own metadata) counts once.

    Parameters
    ----------
    group : str
        Entry-point group, such as `READERS`.

    Returns
    -------
    tuple of PluginEntry
        Sorted by name, then by where each comes from.
    """
    return _entries(group, _search_path())


@lru_cache(maxsize=len(GROUPS))
def _entries(group: str, path: tuple[tuple[str, int], ...]) -> tuple[PluginEntry, ...]:
    return tuple(sorted({_entry(point) for point in _installed(path).select(group=group)}))


def _search_path() -> tuple[tuple[str, int], ...]:
    """Return the folders that distributions are looked for in, with their times of modification."""
    found = []
    for folder in sys.path:
        with suppress(OSError):
            found.append((folder, Path(folder).stat().st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=1)
def _installed(path: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Read the metadata of all distributions once, not for every plugin: it takes a twentieth of a second."""
    return cast(EntryPoints, entry_points())


def _entry(point: EntryPoint) -> PluginEntry:
    name, version = _owner(point.dist) if point.dist is not None else ("unknown distribution", "")
    return PluginEntry(point.name, point.group, point.value, name, version)


@cache
def _owner(distribution: Distribution) -> tuple[str, str]:
    """Return name and version of a distribution, parsed once: a long description takes some milliseconds each time."""
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


@cache
def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution, looked up once: the answer stays that of what is imported.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If it is not installed.
    """
    return version(distribution)


def names(group: str) -> tuple[str, ...]:
    """Return the sorted names of a group's plugins.

    Raises
    ------
    PluginError
        If two plugins bear one name.
    """
    found = entries(group)
    for name in {entry.name for entry in found}:
        _only(found, name)
    return tuple(entry.name for entry in found)


def load(group: str, name: str) -> object:
    """Import the plugin `name` of `group`.

    Parameters
    ----------
    group : str
        Entry-point group, such as `READERS`.
    name : str
        The plugin's name.

    Returns
    -------
    object
        What its entry point names; most often a class.

    Raises
    ------
    PluginError
        If no plugin or more than one has that name, or if importing it fails (the cause is chained).
    """
    return _load(entries(group), group, name)


def load_all(group: str) -> dict[str, object]:
    """Import all plugins of a group, in one search of what is installed.

    Parameters
    ----------
    group : str
        Entry-point group, such as `READERS`.

    Returns
    -------
    dict of str to object
        What their entry points name, by name.

    Raises
    ------
    PluginError
        If two plugins have one name, or importing one fails.
    """
    found = entries(group)
    return {name: _load(found, group, name) for name in sorted({entry.name for entry in found})}


def _load(found: tuple[PluginEntry, ...], group: str, name: str) -> object:
    if not any(entry.name == name for entry in found):
        raise PluginError(_unknown(group, name, [entry.name for entry in found]))
    entry = _only(found, name)
    try:
        return EntryPoint(entry.name, entry.value, entry.group).load()
    except Exception as error:  # a stranger's module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plugin {name!r} of {group} ({entry.value}, from {entry.origin}) does not load: {reason}"
        ) from error


def _only(found: tuple[PluginEntry, ...], name: str) -> PluginEntry:
    same = [entry for entry in found if entry.name == name]
    if len(same) > 1:
        claims = " and ".join(f"{entry.origin} ({entry.value})" for entry in same)
        raise PluginError(f"two plugins of {same[0].group} are named {name!r}: {claims}; uninstall one of them")
    return same[0]


def _unknown(group: str, name: str, known: list[str]) -> str:
    if not known:
        if not any(True for _ in distributions(name="nuclix")):
            return f"no plugin {name!r}: {group} is empty because nuclix is not installed; run pip install"
        return f"no plugin {name!r}: nothing is installed in {group}"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"no plugin {name!r} in {group}{hint} (known: {', '.join(sorted(set(known)))})"
