"""`nuclix info`: facts of slides as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from nuclix.engine.cli.main import main
from slides import lose_tile, smooth_image, write_slide


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


def test_several_files(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = write_slide(tmp_path / "a.svs", smooth_image(300, 400), mpp=0.5)
    lose_tile(slide, 0, 3)
    assert main(["info", str(picture), str(tmp_path / "none.svs"), str(slide), "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"nuclix: error: {tmp_path / 'none.svs'}: no such file\n"
    plain, aperio = json.loads(shown.out)
    assert plain["reader"] == "ImageReader"
    assert plain["run"].startswith("refuse it: states no scale; give it with --mpp")
    assert aperio["mpp_source"] == "vendor metadata"
    assert aperio["objective_power"] == 40
    assert aperio["compression"] == "jpeg"
    assert aperio["missing_tiles"] == 1
    assert aperio["associated_images"] == ["thumbnail"]
    assert aperio["icc_profile"] is None
    assert aperio["run"].startswith("read level 0 enlarged 1 to 2: 800 x 600 px of 0.25 um")


def test_an_onnx_file_is_a_model_and_colours_are_no_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes(bytes([0x08, 8, 0x12, 1, 0x61]))
    assert main(["info", str(tmp_path / "net.onnx")]) == 1
    assert "net.onnx: holds no nuclix.json" in capsys.readouterr().err
    assert main(["info", "dist-kumar16"]) == 0
    assert "color 0, 200, 120" in capsys.readouterr().out


def test_a_colour_profile_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, content in (("good", profile), ("bad", b"no profile")):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", iccprofile=content)
        assert main(["info", str(path), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["icc_profile"]
        assert shown == (f"sRGB built-in ({len(profile)} bytes)" if name == "good" else "damaged (10 bytes)")


def test_another_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = write_slide(tmp_path / "a.svs", smooth_image(300, 400))
    assert main(["info", str(slide), "--reader", "openslide"]) == 0
    assert "OpenSlideReader" in capsys.readouterr().out
