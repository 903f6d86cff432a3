"""Long tests of fault tolerance. They run when they are asked for: ``pytest tests/crash``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these out of a run over everything."""
    return None if any("crash" in argument for argument in config.args) else True


@pytest.fixture
def say(pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return what shows a test's figures."""

    def show(line: str) -> None:
        with capsys.disabled():
            pytestconfig.get_terminal_writer().line(f"\n{line}")

    return show
