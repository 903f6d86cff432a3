"""Import every module under its real name and run its examples.

`pytest --doctest-modules` would import `engine.x` from the checkout instead of `nuclix.engine.x`.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import nuclix.engine
import nuclix.ext
import nuclix.plugins
from sources import PACKAGES, dotted, modules


def walked() -> Iterator[str]:
    for package in (nuclix.engine, nuclix.ext, nuclix.plugins):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                yield module.name


def test_modules_import_and_their_examples_hold() -> None:
    failed = {}
    for name in walked():
        module = importlib.import_module(name)
        assert module.__name__ == name
        failed[name] = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed
    assert {name: count for name, count in failed.items() if count} == {}


def test_the_walk_misses_no_source_file() -> None:
    sources = {dotted(path) for path in modules(*PACKAGES) if path.name != "__main__.py"}
    compiled = {name for name in walked() if is_compiled(name)}
    assert sources == set(walked()) - compiled


def is_compiled(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return any(Path(spec.origin).name.endswith(suffix) for suffix in EXTENSION_SUFFIXES)
