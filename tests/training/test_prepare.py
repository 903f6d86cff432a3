"""Training images from annotated slides and arrays: the pixels, the nuclei and the scale are the slide's."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from blobs import blob_labels
from nuclix.engine.cli.main import main
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.splits import SplitOptions
from slides import aperio_description, noise_image


def ring(row: float, col: float, height: float, width: float) -> list[list[float]]:
    return [[col, row], [col + width, row], [col + width, row + height], [col, row + height], [col, row]]


def feature(corners: list[list[float]], kind: str = "annotation", name: str | None = None) -> dict:
    properties = {"objectType": kind, **({"classification": {"name": name}} if name else {})}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": properties}


def triangle(row: float, col: float, size: float) -> list[list[float]]:
    return [[col, row], [col + size, row], [col, row + size], [col, row]]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A lossless slide of noise at 0.25 um/px."""
    path = tmp_path / "s.svs"
    tifffile.imwrite(
        path, noise_image(300, 400), tile=(128, 128), photometric="rgb", metadata=None,
        description=aperio_description(0.25),
    )  # fmt: skip
    return path


def annotate(path: Path, *features: dict) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def test_a_rectangle_becomes_an_image_with_the_nuclei_in_it(tmp_path: Path, slide: Path) -> None:
    inside, cut, outside = triangle(60, 70, 20), triangle(90, 150, 40), triangle(200, 300, 30)
    shapes = [feature(corners) for corners in (ring(50, 60, 80, 100), inside, cut, outside)]
    annotations = annotate(tmp_path / "s.geojson", *shapes)
    out = tmp_path / "data"
    assert main(["prepare", str(slide), "--annotations", str(annotations), "--out", str(out)]) == 0
    (item,) = load_dataset(out, SplitOptions(train_on_all=True), 0.25).train
    assert item.name == "s_60_50"
    assert np.array_equal(item.image, noise_image(300, 400)[50:130, 60:160])
    assert item.labels.max() == 2, "the one outside is not there"
    rows, cols = np.nonzero(item.labels == item.labels[12, 12])
    assert (rows.min() + 50, cols.min() + 60) == (60, 70) and len(rows) == pytest.approx(200, abs=25)
    rows, cols = np.nonzero(item.labels == item.labels[45, 93])
    assert cols.max() == 99, "cut at the region's edge"
    assert (out / "groups.csv").read_text().split() == ["image,group", "s_60_50,s"]


def test_regions_by_class_may_have_any_shape_and_detections_are_the_nuclei(tmp_path: Path, slide: Path) -> None:
    region = feature(triangle(0, 0, 200), name="Field")
    nuclei = [feature(triangle(row, 20, 10), "detection") for row in (10, 40, 250)]
    annotations = annotate(tmp_path / "s.geojson", region, feature(ring(5, 5, 3, 3)), *nuclei)
    command = ["prepare", str(slide), "--annotations", str(tmp_path), "--region-class", "field"]
    assert annotations.exists() and main([*command, "--mpp", "0.5", "--out", str(tmp_path / "data")]) == 0
    (item,) = load_dataset(tmp_path / "data", SplitOptions(train_on_all=True), 0.5).train
    assert item.image.shape == (100, 100, 3) and item.labels.max() == 2
    assert (item.image[60:, 60:] == 255).all(), "outside of the region"
    assert not (item.image[:40, :40] == 255).all()


@pytest.mark.parametrize("shape", [(), (2,), (4,)])
def test_arrays_of_the_field(tmp_path: Path, shape: tuple[int, ...]) -> None:
    truth = np.stack([blob_labels((48, 56), seed) for seed in (1, 2)])
    labels = np.zeros((*truth.shape, *shape), np.float64)
    if not shape:
        labels = truth
    elif shape == (2,):
        labels[..., 0], labels[..., 1] = truth, truth > 0
    else:  # PanNuke: numbers by class, then background
        for channel in range(3):
            labels[..., channel] = np.where(truth % 3 == channel, truth, 0)
        labels[..., 3] = truth == 0
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((2, 48, 56, 3)) * 255)
    np.save(tmp_path / "masks.npy", labels)
    arrays = ["--arrays", str(tmp_path / "images.npy"), str(tmp_path / "masks.npy")]
    assert main(["prepare", *arrays, "--out", str(tmp_path / "data")]) == 0
    items = load_dataset(tmp_path / "data", SplitOptions(train_on_all=True), 0.25).train
    for item, expected in zip(items, truth, strict=True):
        pairs = set(zip(item.labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(expected)), "the same partition"


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([feature(triangle(0, 0, 50))], "has no rectangles"),
        ([feature(ring(500, 500, 50, 50))], "outside of the slide"),
        ([feature(ring(0, 0, 20000, 50))], "at most 8192 px"),
    ],
)
def test_what_can_not_be_cut_says_why(tmp_path: Path, slide: Path, capfd, features: list[dict], words: str) -> None:
    annotations = annotate(tmp_path / "s.geojson", *features)
    command = ["prepare", str(slide), "--annotations", str(annotations), "--out", str(tmp_path / "data")]
    assert main(command) == 1
    assert words in capfd.readouterr().err


def test_a_data_folder_is_not_overwritten(tmp_path: Path, slide: Path, capfd) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    annotations = annotate(tmp_path / "s.geojson", feature(ring(0, 0, 50, 50)))
    command = ["prepare", str(slide), "--annotations", str(annotations), "--out", str(tmp_path / "data")]
    assert main(command) == 1
    assert "choose another folder" in capfd.readouterr().err
