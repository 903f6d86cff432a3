"""`nuclix overlay` and `nuclix tissue`: pictures of results and of tissue, and what becomes of bad input."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nuclix.engine.cli.main import main
from nuclix.engine.slide.open import open_slide, slide_scale
from nuclix.engine.slide.tissue import tissue_mask
from nuclix.engine.slide.view import SlideView
from slides import write_slide

RED, GREEN = (250, 0, 0), (0, 255, 0)
TEAL = (0, 150, 136)  # of the class Tissue
MPP = 0.5
PIECE = (slice(128, 640), slice(256, 768))  # of the slide of 1024 x 1280 px: 256 x 256 um


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A white slide with one square of tissue."""
    image = np.full((1024, 1280, 3), 250, np.uint8)
    image[PIECE] = (180, 90, 160)
    return write_slide(tmp_path / "slide.svs", image, mpp=MPP, compression="none")


def feature(x: int, y: int, edge: int, classification: Any = None) -> dict[str, Any]:
    ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
    properties: dict[str, Any] = {"objectType": "detection"}
    if classification is not None:
        properties["classification"] = classification
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def collection(*features: dict[str, Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "slide.geojson"
    path.write_bytes(collection(feature(300, 200, 40, {"name": "Tumor", "color": list(RED)}), feature(600, 500, 40)))
    return path


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def places(path: Path, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return first and last row, first and last column of a colour."""
    rows, cols = np.nonzero((pixels(path) == color).all(axis=2))
    return int(rows.min()), int(rows.max()), int(cols.min()), int(cols.max())


def test_outlines_have_their_place_and_the_colour_of_their_class(
    slide: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.png"
    assert main(["overlay", str(slide), str(result), "--out", str(out)]) == 0
    assert pixels(out).shape == (1024, 1280, 3)
    assert places(out, RED) == (200, 240, 300, 340)
    assert places(out, GREEN) == (500, 540, 600, 640)
    shown = capsys.readouterr()
    assert "1280 x 1024 px" in shown.out
    assert "2 of 2 outlines" in shown.out
    assert shown.err == ""


def test_a_region_is_cut_at_the_slides_edge_and_shrunk_to_the_size(
    slide: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.png"
    command = ["overlay", str(slide), str(result), "--out", str(out)]
    assert main([*command, "--region", "280,180,100,80"]) == 0
    assert pixels(out).shape == (80, 100, 3)
    assert places(out, RED) == (20, 60, 20, 60)
    assert "1 of 2 outlines" in capsys.readouterr().out
    assert main([*command, "--region=-100,-100,500,400", "--max-size", "200"]) == 0
    assert pixels(out).shape == (150, 200, 3)
    assert places(out, RED) == (100, 120, 150, 170)


@pytest.mark.parametrize("name", ["slide.geojson.gz", "slide.zip"])
def test_packed_results_give_the_same_picture(slide: Path, result: Path, tmp_path: Path, name: str) -> None:
    packed = tmp_path / name
    if name.endswith(".gz"):
        packed.write_bytes(gzip.compress(result.read_bytes()))
    else:
        features = json.loads(result.read_bytes())["features"]
        with zipfile.ZipFile(packed, "w") as archive:
            for number, item in enumerate(features):
                archive.writestr(f"nuclei-{number}.geojson", collection(item))
    for path, out in ((result, "a.png"), (packed, "b.png")):
        assert main(["overlay", str(slide), str(path), "--out", str(tmp_path / out)]) == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_files_of_other_programs_are_drawn_too(slide: Path, tmp_path: Path) -> None:
    """A list of features, a class given by its name, corners with an elevation, null properties."""
    named, bare = feature(300, 200, 40, "Tumor"), feature(600, 500, 40)
    bare["properties"] = None
    named["geometry"]["coordinates"] = [[[*corner, 0.0] for corner in named["geometry"]["coordinates"][0]]]
    path, out = tmp_path / "other.geojson", tmp_path / "o.png"
    path.write_text(json.dumps([named, bare]))
    assert main(["overlay", str(slide), str(path), "--out", str(out)]) == 0
    assert places(out, GREEN) == (200, 540, 300, 640)


@pytest.mark.parametrize(
    ("features", "warning"),
    [([], "holds no outlines"), ([feature(90_000, 90_000, 20)], "none of its 1 outlines lies in the slide")],
)
def test_nothing_to_draw_is_a_picture_and_a_warning(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], features: list[dict[str, Any]], warning: str
) -> None:
    path, out = tmp_path / "e.geojson", tmp_path / "o.png"
    path.write_bytes(collection(*features))
    assert main(["overlay", str(slide), str(path), "--out", str(out)]) == 0
    assert not (pixels(out) == GREEN).all(axis=2).any()
    error = capsys.readouterr().err
    assert warning in error
    assert str(path) in error


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"slide": "none.svs"}, 1, "none.svs: no such file"),
        ({"result": "none.geojson"}, 1, "none.geojson: no such file"),
        ({"result": "slide.csv"}, 2, "nuclix export OUT --format geojson"),
        ({"result": "bad.geojson"}, 1, "bad.geojson: feature 1 has no outline"),
        ({"result": "bad.zip"}, 1, "bad.zip: feature 1 has no outline"),
        ({"result": "bad.geojson.gz"}, 1, "bad.geojson.gz: feature 1 has no outline"),
        ({"out": "o.doc"}, 2, "must end in .png"),
        ({"out": "nowhere/o.png"}, 2, "nowhere does not exist"),
        ({"--region": "1280,0,10,10"}, 2, "which is 1280 x 1024 px"),
        ({"--region": "0,0,10"}, 2, "four whole numbers"),
        ({"--region": "0,0,0,10"}, 2, "must be positive"),
        ({"--max-size": "0"}, 2, "from 1 to"),
        ({"--max-size": "100000"}, 2, "from 1 to"),
    ],
)
def test_bad_input_is_named_and_leaves_no_picture(
    slide: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], code: int,
    said: str,
) -> None:  # fmt: skip
    for name in ("bad.geojson", "bad.zip", "bad.geojson.gz", "slide.csv"):
        (tmp_path / name).write_text('{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[1, NaN]]]}}]}')
    given = {"slide": slide.name, "result": result.name, "out": "o.png"} | changed
    files = [str(tmp_path / given[name]) for name in ("slide", "result", "out")]
    options = [part for name, value in changed.items() if name.startswith("--") for part in (name, value)]
    command = ["overlay", *files[:2], "--out", files[2], *options]
    try:
        assert main(command) == code
    except SystemExit as left:  # argparse's
        assert left.code == code
    assert said in capsys.readouterr().err
    assert not Path(files[2]).exists()


def test_inputs_are_not_overwritten(slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "tissue.png"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(picture)
    before = picture.read_bytes()
    assert main(["tissue", str(picture), "--mpp", "0.5", "--out", str(tmp_path / "." / "tissue.png")]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_tissue_is_outlined_measured_and_written(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, geojson = tmp_path / "t.png", tmp_path / "t.geojson"
    assert main(["tissue", str(slide), "--out", str(out), "--geojson", str(geojson), "--max-size", "640"]) == 0
    reach = 3 * 16 // 2  # dilation by 2 px of 16 level-0 px, one of rounding; the picture shows every second pixel
    first_row, last_row, first_col, last_col = places(out, TEAL)
    assert 64 - reach <= first_row <= 64
    assert 320 <= last_row <= 320 + reach
    assert 128 - reach <= first_col <= 128
    assert 384 <= last_col <= 384 + reach
    assert "tissue: 0.06554 mm2, 20.0% of the slide (0.3277 mm2)" in capsys.readouterr().out
    (annotation,) = json.loads(geojson.read_bytes())["features"]
    properties = annotation["properties"]
    assert (properties["objectType"], properties["name"], properties["isLocked"]) == ("annotation", "Tissue 1", True)
    assert list(properties["measurements"]) == ["Area µm^2"], "nuclei were not counted"
    assert properties["measurements"]["Area µm^2"] == pytest.approx(((512 + 64) * MPP) ** 2)
    ring = np.array(annotation["geometry"]["coordinates"][0])
    assert ring.min(axis=0).tolist() == [256 - 32, 128 - 32]
    assert ring.max(axis=0).tolist() == [768 + 32, 640 + 32]


def test_tissue_is_what_a_run_computes(slide: Path) -> None:
    """The mask does not depend on the model's scale, which the command does not know."""
    reader = open_slide(slide)
    scale = slide_scale(reader.info)
    masks = [tissue_mask(reader, SlideView(reader, wanted, scale)) for wanted in (scale, type(scale)(2 * MPP))]
    reader.close()
    assert np.array_equal(masks[0].mask, masks[1].mask)
    assert masks[0].area_mm2 == masks[1].area_mm2


def test_gzipped_annotations_overlay_on_the_slide(slide: Path, tmp_path: Path) -> None:
    packed, out = tmp_path / "t.geojson.gz", tmp_path / "o.png"
    assert main(["tissue", str(slide), "--out", str(tmp_path / "t.png"), "--geojson", str(packed)]) == 0
    assert main(["overlay", str(slide), str(packed), "--out", str(out)]) == 0
    assert places(out, TEAL) == (96, 672, 224, 800)


def test_a_slide_without_tissue_or_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = write_slide(tmp_path / "blank.svs", np.full((512, 512, 3), 250, np.uint8), compression="none")
    geojson = tmp_path / "t.geojson"
    assert main(["tissue", str(blank), "--out", str(tmp_path / "t.png"), "--geojson", str(geojson)]) == 0
    shown = capsys.readouterr()
    assert "0 mm2, 0.0% of the slide" in shown.out
    assert "no tissue" in shown.err
    assert json.loads(geojson.read_bytes())["features"] == []
    unknown = write_slide(tmp_path / "unknown.svs", np.full((512, 512, 3), 90, np.uint8), mpp=None)
    command = ["tissue", str(unknown), "--out", str(tmp_path / "u.png")]
    assert main(command) == 1
    assert "--mpp" in capsys.readouterr().err
    assert main([*command, "--mpp", "0.5"]) == 0
    assert "100.0% of the slide" in capsys.readouterr().out
    assert main([*command, "--geojson", str(tmp_path / "t.csv")]) == 2
    assert "must end in .geojson" in capsys.readouterr().err
