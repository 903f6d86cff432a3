"""`nuclix info`: facts of slides as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuclix.engine.cli.main import main


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "plain.png"
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(path)
    return path


def test_slide_as_json(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(picture), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["slide"] == str(picture)
    assert facts["size_px"] == [50, 30]
    assert facts["levels"] == [{"size_px": [50, 30], "downsample": 1.0, "mpp": None}]
    assert facts["mpp"] is None
    assert facts["size_mm"] is None
    assert facts["bytes"] == picture.stat().st_size
    assert len(facts["fingerprint"]) == 64


def test_slide_as_text_is_one_fact_a_line(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(picture)]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["size", "px", "50 x 30"] in lines
    assert ["um/px", "not", "stated"] in lines


@pytest.mark.parametrize("name", ["none.svs", "none.pt", "no-such-model"])
def test_a_missing_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path / name)]) in {1, 2}
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("nuclix: error: ")
    assert name in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"just text", b"\x00" * 100])
def test_what_is_no_slide_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.svs"
    path.write_bytes(content)
    assert main(["info", str(path)]) == 1
    assert "text.svs" in capsys.readouterr().err
