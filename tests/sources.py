"""The source files that the style tests read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "ext", "plugins")
SHIPPED = (*PACKAGES, "testing")  # and the conformance suites, which may import pytest


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target, absolute: ``from a import b`` stands for a.b."""

    name: str
    line: int
    at_top: bool


def modules(*packages: str) -> list[Path]:
    """Return the Python files of the packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for name in packages for path in (ROOT / name).rglob("*.py"))


def dotted(path: Path) -> str:
    """Return the module that a file is imported as."""
    parts = path.with_suffix("").parts
    return ".".join(("nuclix", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def tree(path: Path) -> ast.Module:
    """Parse one file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a file; `at_top` where it runs when the module is imported."""
    yield from _imports(tree(path), path, at_top=True)


def _imports(node: ast.AST, path: Path, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, path)
            yield from (Import(f"{base}.{alias.name}", child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, path, at_top=False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:  # seen by type checkers only: it must obey the directions, not the weight
                yield from _imports(ast.Module([statement], []), path, at_top=False)
            yield from _imports(ast.Module(child.orelse, []), path, at_top=at_top)
        else:
            yield from _imports(child, path, at_top=at_top)


def _base(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)
