"""``nuclix plugins``: what is installed, from metadata alone; with ``--check`` each one is loaded too."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nuclix.engine.registry import PluginEntry

TITLES = {
    "nuclix.readers": "slide readers",
    "nuclix.postprocessors": "post-processors",
    "nuclix.recipes": "recipes",
    "nuclix.writers": "writers",
    "nuclix.weights": "weights",
    "nuclix.model_sources": "model sources",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "plugins",
        help="list readers, post-processors, recipes, writers and weights",
        description="List what is installed, read from package metadata: nothing is imported unless --check is given.",
    )
    parser.add_argument("--check", action="store_true", help="load each plugin and say which ones fail, and why")
    parser.set_defaults(command=list_plugins)


def list_plugins(args: argparse.Namespace) -> int:
    """Print the table; return 1 if two plugins share a name or, with ``--check``, one does not load."""
    from nuclix.engine import registry

    failed = False
    for group in registry.GROUPS:
        found = registry.entries(group)
        print(f"{TITLES[group]} ({group})")
        if not found:
            print("  none")
        width = max((len(entry.name) for entry in found), default=0)
        count = Counter(entry.name for entry in found)
        for entry in found:
            problem = "two plugins have this name" if count[entry.name] > 1 else ""
            if args.check and not problem:
                problem = _problem(entry)
            failed = failed or bool(problem)
            verdict = f"  FAILS: {problem}" if problem else "  ok" if args.check else ""
            print(f"  {entry.name:<{width}}  {entry.origin}  {entry.value}{verdict}")
    return int(failed)


def _problem(entry: PluginEntry) -> str:
    """Load one plugin and return what is wrong with it, or nothing."""
    from nuclix.engine import registry
    from nuclix.engine.errors import PluginError

    try:
        plugin = registry.load(entry.group, entry.name)
    except PluginError as error:
        cause = error.__cause__
        return f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
    missing = [member for member in _members(entry.group) if not hasattr(plugin, member)]
    return f"lacks {', '.join(missing)}" if missing else ""


def _members(group: str) -> list[str]:
    """Return what a plugin class of `group` must have: the methods and class attributes of its protocol."""
    from nuclix.engine import contracts, registry
    from nuclix.engine.inference.model_source import ModelSource
    from nuclix.engine.training.contracts import Recipe

    protocols: dict[str, type] = {
        registry.READERS: contracts.SlideReader,
        registry.POSTPROCESSORS: contracts.PostProcessor,
        registry.RECIPES: Recipe,
        registry.WRITERS: contracts.Writer,
        registry.MODEL_SOURCES: ModelSource,
    }
    if group not in protocols:
        return []
    protocol = protocols[group]
    classwide = [name for name, kind in protocol.__annotations__.items() if str(kind).startswith("ClassVar")]
    return [*classwide, *(name for name in vars(protocol) if not name.startswith("_"))]
