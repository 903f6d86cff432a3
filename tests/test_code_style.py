"""Sizes that keep files readable, and habits that ruff has no rule for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sources import ROOT, SHIPPED, modules, tree

FILE_LINES = 400
FUNCTION_LINES = 50


def test_files_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in modules(*SHIPPED, "tests")}
    assert {path: length for path, length in lengths.items() if length >= FILE_LINES} == {}


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring, which may be as long as it needs."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        length -= first.end_lineno - first.lineno + 1
    return length


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_functions_are_short() -> None:
    found = {
        f"{path}:{node.lineno} {node.name}": lines_of_code(node)
        for path in modules(*SHIPPED)
        for node in functions(path)
    }
    assert {where: length for where, length in found.items() if length >= FUNCTION_LINES} == {}


def test_configuration_has_names() -> None:
    """No function takes ``**kwargs``."""
    found = [f"{path}:{node.lineno}" for path in modules(*SHIPPED) for node in functions(path) if node.args.kwarg]
    assert found == []


def test_modules_hold_no_state() -> None:
    """A module's names are constants in capitals, dunders, types or its log; lower-case ones would be variables."""
    found = [
        f"{path}: {name}"
        for path in modules(*SHIPPED)
        for name in assigned(tree(path).body)
        if not (name.startswith("__") and name.endswith("__")) and name != "log" and not name.lstrip("_")[:1].isupper()
    ]
    assert found == []


def assigned(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()


def test_kernels_have_wrappers_and_plain_headers() -> None:
    """Every compiled module is private (``_name``): what users call is the validating function next to it."""
    assert all(path.name.startswith("_") for path in (ROOT / "ext").glob("*.pyx"))
    assert all(path.name.startswith("_") for path in (ROOT / "ext").glob("*.pxi"))
