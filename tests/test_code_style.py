"""Sizes that keep files readable, and habits that ruff has no rule for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sources import ROOT, SHIPPED, modules, tree

FILE_LINES = 400
FUNCTION_LINES = 50


@pytest.mark.parametrize("path", [*modules(*SHIPPED, "tests"), Path("setup.py")], ids=str)
def test_files_are_short(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) < FILE_LINES


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring, which may be as long as it needs."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        length -= first.end_lineno - first.lineno + 1
    return length


@pytest.mark.parametrize("path", modules(*SHIPPED), ids=str)
def test_functions_are_short_and_configuration_has_names(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{path}:{node.lineno} {node.name}"
            assert lines_of_code(node) < FUNCTION_LINES, f"{where} is too long"
            assert node.args.kwarg is None, f"{where} takes **{node.args.kwarg.arg}"  # type: ignore[union-attr]


@pytest.mark.parametrize("path", modules(*SHIPPED), ids=str)
def test_modules_hold_no_state(path: Path) -> None:
    """A module's names are constants in capitals, dunders, types or its log; lower-case ones would be variables."""
    for name in assigned(tree(path).body):
        dunder = name.startswith("__") and name.endswith("__")
        assert dunder or name == "log" or name.lstrip("_")[:1].isupper(), f"{path}: {name} looks like a variable"


def assigned(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()


def test_kernels_have_wrappers_and_plain_headers() -> None:
    """Every compiled module is private (``_name``): what users call is the validating function beside it."""
    assert all(path.name.startswith("_") for path in (ROOT / "ext").glob("*.pyx"))
    assert all(path.name.startswith("_") for path in (ROOT / "ext").glob("*.pxi"))
