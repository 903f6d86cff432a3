"""What every test gets: Hypothesis profiles, workers that start at once, skips for what this machine does not have."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A slow or busy machine must not fail a property, so there is no deadline; CI draws the same examples every time.
settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

# Several test processes share the machine: idle threads of OpenMP would spin for nothing. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).parents[1].parent / "shared"


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the real images or a GPU where there are none."""
    absent = {}
    if not SHARED.is_dir():
        absent["shared"] = "no real images next to the checkout"
    if any(item.get_closest_marker("gpu") for item in items) and not _has_cuda():
        absent["gpu"] = "no CUDA device"
    for item in items:
        for marker, reason in absent.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in what a test printed or logged: pytest-xdist can't send them."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real images next to the checkout; only for tests marked `shared`."""
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def quick_workers() -> None:
    """Fork the workers of in-process runs from a process that has loaded PyTorch; `nuclix run` spawns its own."""
    from nuclix.engine.batch import worker_process

    multiprocessing.set_forkserver_preload(["torch", "nuclix.engine.batch.worker", "nuclix.plugins.readers.tiffslide"])
    worker_process._START_METHOD = "forkserver"
