"""`nuclix demo` from end to end with a model made by hand: it needs no trained weights to be tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuclix.engine.cli import demo
from nuclix.engine.cli.main import main
from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.geometry import Scale

EDGE = 512
REACH = 4  # px that the network looks around a pixel
STEEPNESS = 6.0
RED_OF_NUCLEI = 150.0  # between haematoxylin, which takes red away, and eosin, which does not


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a network that takes the mean lack of red around a pixel for its distance from the border."""
    import torch

    from nuclix.engine.inference.model_file import save_model
    from nuclix.engine.training.unet import HALF_RANGE, WHITE, Exported

    path = tmp_path_factory.mktemp("model") / "red.pt"
    window = 2 * REACH + 1
    network = torch.nn.Conv2d(3, 1, window, padding=REACH)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, 0] = -STEEPNESS / window**2
        network.bias.fill_(STEEPNESS * (RED_OF_NUCLEI - WHITE) / HALF_RANGE)
    save_model(path, Exported(network, torch.nn.ReLU()), card())
    return path


def card() -> ModelCard:
    return ModelCard(
        name="red",
        method="by hand",
        scale=Scale(0.25),
        patch=PatchShape(256, 16),
        maps=("distance",),
        postprocessor="dist",
        parameters={"p1": 0.5, "p2": 0.5},
        classes=(ObjectClass("Nucleus", (255, 240, 0)),),
        training={"licence": "none needed"},
    )


def test_demo_finds_scores_and_draws(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "EDGE", EDGE)
    out = tmp_path / "new" / "demo"
    assert main(["demo", "--out", str(out), "--model", str(model), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    found = json.loads((out / "demo-slide.geojson").read_text())["features"]
    assert f"found: {len(found)} nuclei; AJI 0." in shown
    assert len(found) > 10
    assert (out / "demo-slide.json").exists()
    assert (out / "truth" / "demo-slide.tif").exists()
    with Image.open(out / "demo-slide-overlay.png") as picture:
        assert picture.size == (EDGE, EDGE)
        yellow = (np.asarray(picture) == (255, 240, 0)).all(axis=2)
    assert yellow.sum() > 20 * len(found), "outlines are drawn"
    assert float(shown.partition("AJI ")[2].partition(",")[0]) > 0.2


def test_a_failing_run_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EDGE", 256)
    assert main(["demo", "--out", str(tmp_path), "--model", str(tmp_path / "none.pt")]) == 2
    assert not list(tmp_path.glob("*.png"))


def test_an_impossible_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert main(["demo", "--out", str(blocked / "demo")]) == 1
    assert str(blocked / "demo") in capsys.readouterr().err


def test_info_shows_a_models_card(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == str(model)
    assert facts["parameters"] == {"p1": 0.5, "p2": 0.5}
    assert facts["scale"] == {"mpp": 0.25}
    assert facts["training"] == {"licence": "none needed"}
    assert len(facts["sha256"]) == 64
    assert main(["info", str(model)]) == 0
    text = capsys.readouterr().out
    assert "none needed" in text
    assert facts["sha256"] in text


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04 cut short"])
def test_info_refuses_what_is_no_model(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    assert main(["info", str(path)]) == 1
    shown = capsys.readouterr().err
    assert "bad.pt" in shown
    assert "Traceback" not in shown
