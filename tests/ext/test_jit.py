"""Kernels compile where nothing can be cached."""

from __future__ import annotations

import numba
import pytest
from numba.core import caching

from nuclix.ext._jit import kernel


def twice(number: int) -> int:
    return 2 * number


def test_a_read_only_install_compiles_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])  # no folder suits
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(twice, cache=True)
    compiled = kernel(twice)
    assert compiled(21) == 42
    assert compiled.targetoptions["nogil"]
    assert type(compiled._cache).__name__ == "NullCache"


def test_kernels_are_cached_and_let_go_of_the_gil() -> None:
    compiled = kernel(twice)
    assert compiled(4) == 8
    assert compiled.targetoptions["nogil"]
    assert type(compiled._cache).__name__ == "FunctionCache"
