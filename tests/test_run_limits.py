"""Runs limited by masks, regions and scale: what is computed, what is refused, and what a change of a file asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from end_to_end import make_model, make_slide
from nuclix.engine.cli.main import main
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.view import SlideView
from slides import ArrayReader, reduced
from test_regions import feature, write


def run(folder: Path, slide: Path, *options: object) -> int:
    words = [
        "run",
        slide,
        "--out",
        folder / "out",
        "--model",
        folder / "model.pt",
        "--device",
        "cpu",
        "--quiet",
        *options,
    ]
    return main([str(word) for word in words])


def nuclei(folder: Path) -> list[list[list[float]]]:
    features = json.loads((folder / "out" / "slide.geojson").read_bytes())["features"]
    found = [item for item in features if item["properties"]["objectType"] == "detection"]
    return [item["geometry"]["coordinates"][0] for item in found]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    make_model(tmp_path / "model.pt")
    return make_slide(tmp_path / "slide.tif", height=256, width=320)


def test_a_tissue_mask_says_where_to_compute_and_is_part_of_the_result(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((16, 20), np.uint8)
    mask[:, :10] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ("--tissue-mask", tmp_path / "mask.png", "--stain-normalisation", "macenko", "--icc")
    assert run(tmp_path, slide, *options) == 0
    found = nuclei(tmp_path)
    assert found and max(x for ring in found for x, _ in ring) < 220
    record = json.loads((tmp_path / "out" / "slide.json").read_bytes())
    assert record["counts"]["tissue_mm2"] == pytest.approx(0.5 * 256 * 320 * 0.0625 / 1e6, rel=0.1)
    assert "quality" in record["slide"]
    assert any("no ICC profile" in warning for warning in record["warnings"])
    assert run(tmp_path, slide, *options) == 0
    Image.fromarray(np.ones((16, 20), np.uint8)).save(tmp_path / "mask.png")
    assert run(tmp_path, slide, *options) == 2
    assert "tissue_mask" in capsys.readouterr().err


def test_a_changed_file_of_regions_asks_for_consent(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "r.geojson", feature("a", "", [[0, 0], [150, 0], [150, 150], [0, 150]]))
    assert run(tmp_path, slide, "--regions", path) == 0
    before = len(nuclei(tmp_path))
    write(path, feature("a", "", [[0, 0], [320, 0], [320, 256], [0, 256]]))
    assert run(tmp_path, slide, "--regions", path) == 2
    assert "regions" in capsys.readouterr().err
    assert run(tmp_path, slide, "--regions", path, "--recompute") == 0
    assert len(nuclei(tmp_path)) > before > 0


def test_a_slide_far_coarser_than_the_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(tmp_path / "model.pt")
    slide = make_slide(tmp_path / "slide.tif", height=60, width=60, mpp=1.0)
    assert run(tmp_path, slide) == 1
    assert "4.0 times coarser than the model's 0.25 um/px" in capsys.readouterr().err
    assert run(tmp_path, slide, "--allow-upsampling") == 0


@pytest.mark.parametrize(("height", "width"), [(2967, 2220), (1001, 1333), (513, 2047)])
def test_the_far_corner_lies_within_half_a_pixel(height: int, width: int) -> None:
    """Rows and columns are coded in the colours; levels do not divide evenly."""
    rows, cols = np.mgrid[:height, :width]
    image = np.stack([rows * 255 / height, cols * 255 / width, rows * 0], axis=2)
    base = np.rint(image).astype(np.uint8)
    reader = ArrayReader([base, reduced(base, 4)])
    view = SlideView(reader, Scale(2.0), Scale(0.25))
    corner = view.read(Box(view.height - 4, view.width - 4, 3, 3)).astype(float)
    places = [(view.height - 3) * 8 + 4 - 0.5, (view.width - 3) * 8 + 4 - 0.5]  # centre of the middle pixel
    for channel, (place, length) in enumerate(zip(places, (height, width), strict=True)):
        found = corner[1, 1, channel] * length / 255
        rounding = 0.5 * length / 255 + 0.5 * length / 255  # of the level and of the view
        assert abs(found - place) <= 0.5 * 8 + rounding
