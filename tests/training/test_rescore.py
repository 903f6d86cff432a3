"""The script next to the papers' pages gives the scores that the model's card has, and those of other parameters."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from blobs import blobs, write_folder
from nuclix.engine.cli import main
from nuclix.engine.inference.model_file import read_card
from sources import ROOT

SCRIPT = ROOT / "docs" / "papers" / "rescore.py"


def test_rescoring_gives_the_cards_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folder(tmp_path / "data", [blobs(name, (96, 96), seed) for seed, name in enumerate("abc")])
    (data / "split.csv").write_text("image,split\na,train\nb,train\nc,validation\n")
    model = tmp_path / "m.pt"
    command = [
        *("train", "probability", "--data", str(data), "--out", str(model), "--set", "architecture=baochuan"),
        *("--steps", "25", "--batch", "2", "--patch", "64", "--lr", "0.05", "--precision", "float32"),
        *("--threads", "1", "--device", "cpu"),
    ]
    assert main(command) == 0
    card = read_card(model).scores["validation"]["mean"]
    assert card["aji"] > 0
    capsys.readouterr()

    def rescored(*more: str) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(model), str(data), *more])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        *_, head, _, image, mean = capsys.readouterr().out.splitlines()
        assert image.startswith("| c |") and image[4:] == mean[7:]
        return dict(zip(head.strip("| ").split(" | ")[1:], map(float, mean.strip("|").split("|")[1:]), strict=True))

    found = rescored()
    assert found["aji"] == pytest.approx(card["aji"], abs=2e-3)  # batch norms are folded in the file
    assert found["f1"] == pytest.approx(card["f1"], abs=2e-3)
    assert rescored("--set", "min_area=100000")["aji"] == 0
