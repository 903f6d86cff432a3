"""Peers on one thread, and one way to time a kernel against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

SIZES = (1000, 4000)
ROUNDS = {1000: 15, 4000: 5, 8000: 3}


def opencv() -> Any:
    """Return OpenCV on one thread, or skip."""
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(1)
    return cv2


def diplib() -> Any:
    """Return DIPlib on one thread, or skip."""
    dip = pytest.importorskip("diplib")
    dip.SetNumberOfThreads(1)
    return dip


def simpleitk() -> Any:
    """Return SimpleITK on one thread, or skip."""
    sitk = pytest.importorskip("SimpleITK")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return sitk


def race(
    benchmark: Any, group: str, who: str, contenders: Mapping[str, Callable[..., Callable[[], Any]]], *arrays: Any
) -> Any:
    """Time contender `who` on `arrays` in the group's table and return its result.

    A contender is a function of the arrays that prepares its own input (its format, not its work) and returns what
    is timed.
    """
    size = arrays[0].shape[0]
    run = contenders[who](*arrays)
    benchmark.group = f"{group} {size}x{size}"
    benchmark.extra_info.update(kernel=group, who=who, pixels=size * size)
    slow = who in ("scikit-image", "SimpleITK", "SciPy by object") and size > SIZES[0]
    return benchmark.pedantic(run, rounds=1 if slow else ROUNDS[size], warmup_rounds=0 if slow else 1)
