"""The Python API: its nuclei are those of `nuclix run`, in regions too, and its views of them agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape

import nuclix.engine as api
from nuclix.engine import Model, Nuclei, RunConfig, concat, load_model, open_slide, segment, segment_image
from nuclix.engine.cli.main import main
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.hooks import Progress
from nuclix.engine.slide.synthetic import make_synthetic_slide

EDGE = 1280  # two patches of the shipped model along each side
SEED = 3


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic_slide(tmp_path_factory.mktemp("slide") / "synthetic.tif", EDGE, SEED).path


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("dist-kumar16", device="cpu")


@pytest.fixture(scope="module")
def pixel_model() -> Model:
    """The same, with outlines along pixel edges: their label image is the labels that they were traced from."""
    return load_model("dist-kumar16", device="cpu", config=RunConfig(outline="pixel", keep_holes=True))


@pytest.fixture(scope="module")
def whole(slide: Path, model: Model) -> Nuclei:
    return segment(slide, model)


@pytest.fixture(scope="module")
def rgb(slide: Path) -> NDArray[np.uint8]:
    reader = open_slide(slide)
    pixels = reader.read(0, Box(700, 600, 512, 600))
    reader.close()
    return pixels


def same(one: Nuclei, other: Nuclei) -> bool:
    columns = ("first", "pixels", "rings", "shells", "offsets", "corners", "classes")
    equal = [np.array_equal(getattr(one.objects, name), getattr(other.objects, name)) for name in columns]
    measured = [np.array_equal(values, other.measurements[name]) for name, values in one.measurements.items()]
    return all(equal) and all(measured) and one.header == other.header


def test_a_slide_gives_the_bytes_of_nuclix_run(slide: Path, whole: Nuclei, tmp_path: Path) -> None:
    assert main(["run", str(slide), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]) == 0
    written = whole.to_geojson(tmp_path / "api.geojson")
    assert written.read_bytes() == (tmp_path / "out" / "synthetic.geojson").read_bytes()
    assert len(whole) > 200


def test_a_polygon_has_the_nuclei_of_the_whole_slide(slide: Path, model: Model, whole: Nuclei) -> None:
    shell, hole = [(200, 150), (900, 300), (700, 800), (150, 600)], [(400, 400), (600, 400), (600, 500), (400, 500)]
    polygon = shapely.Polygon(shell, [hole])
    inside = np.array([polygon.intersects(shapely.Point(col, row)) for row, col in whole.centroids])
    assert 0 < inside.sum() < len(whole)
    assert same(segment(slide, model, region=polygon), whole[inside])
    with pytest.raises(ValueError, match="the region is empty"):
        segment(slide, model, region=shapely.Polygon())


@pytest.mark.parametrize(
    "region", [(300, 200, 700, 400), (0, 0, EDGE, 90), Box(780, 760, 120, 150), (1200, 1200, 500, 500)]
)
def test_a_region_has_the_nuclei_of_the_whole_slide(
    region: tuple[int, int, int, int] | Box, slide: Path, model: Model, whole: Nuclei
) -> None:
    found = segment(slide, model, region=region)
    x, y, width, height = (region.col, region.row, region.width, region.height) if isinstance(region, Box) else region
    row, col = whole.centroids.T
    inside = (row >= y) & (row < y + height) & (col >= x) & (col < x + width)
    assert inside.any()
    assert same(found, whole[inside])


def test_a_region_computes_only_its_patches(slide: Path, model: Model) -> None:
    tiles: list[Progress] = []
    segment(slide, model, region=(100, 100, 50, 50), tissue=False, on_progress=tiles.append)
    assert tiles[0].tiles_total == 1


def test_an_empty_region_has_no_nuclei_and_all_columns(
    slide: Path, model: Model, whole: Nuclei, tmp_path: Path
) -> None:
    nothing = segment(slide, model, region=(EDGE + 100, 0, 50, 50))
    assert len(nothing) == 0
    assert list(nothing.measurements) == list(whole.measurements)
    assert nothing.centroids.shape == (0, 2)
    assert not nothing.labels((20, 30)).any()
    assert json.loads(nothing.to_geojson(tmp_path / "nothing.geojson").read_bytes())["features"] == []
    assert len(nothing.to_geopandas()) == 0
    assert "0 nuclei" in nothing._repr_html_()


def test_an_image_gives_the_nuclei_of_nuclix_run(rgb: NDArray[np.uint8], model: Model, tmp_path: Path) -> None:
    Image.fromarray(rgb).save(tmp_path / "crop.png")
    argv = ["run", str(tmp_path / "crop.png"), "--out", str(tmp_path), "--mpp", "0.25", "--device", "cpu", "--quiet"]
    assert main(argv) == 0
    nuclei = segment_image(rgb, model, mpp=0.25)
    features = json.loads((tmp_path / "crop.geojson").read_bytes())["features"]
    geometries = nuclei.to_geopandas().geometry.values
    assert len(features) == len(nuclei) > 50
    written = [shape(feature["geometry"]) for feature in features]
    assert shapely.equals_exact(written, geometries, tolerance=0.0075).all()  # the file has two decimals


def test_labels_are_the_nuclei_at_any_scale(rgb: NDArray[np.uint8], pixel_model: Model) -> None:
    nuclei = segment_image(rgb, pixel_model, mpp=0.25)
    labels = nuclei.labels(rgb.shape[:2])
    assert labels.shape == rgb.shape[:2]
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=len(nuclei) + 1)[1:], nuclei.objects.pixels)
    np.testing.assert_array_equal(nuclei.labels((100, 120), corner=(50, 70)), labels[50:150, 70:190])
    half = nuclei.labels((256, 300), downsample=2)
    inner = shapely.buffer(nuclei.to_geopandas().geometry.values, -2)
    for number in np.flatnonzero(~shapely.is_empty(inner))[:20]:
        point = shapely.point_on_surface(inner[number])
        assert half[int(point.y // 2), int(point.x // 2)] == number + 1


def test_centroids_and_identifiers_are_those_of_the_file(whole: Nuclei, tmp_path: Path) -> None:
    table = whole.to_geopandas()
    centres = np.array([[point.y, point.x] for point in table.geometry.centroid])
    np.testing.assert_allclose(whole.centroids, centres, atol=1e-6)
    features = json.loads(whole.to_geojson(tmp_path / "w.geojson").read_bytes())["features"]
    assert [feature["id"] for feature in features] == list(table.index)
    assert set(table["class"]) <= set(whole.class_names)
    np.testing.assert_allclose(table["Area µm^2"], table.geometry.area * whole.mpp**2)


def test_nuclei_are_chosen_and_joined(whole: Nuclei, tmp_path: Path) -> None:
    area = whole.measurements["Area µm^2"]
    large = whole[area > np.median(area)]
    assert len(large) == (area > np.median(area)).sum()
    assert same(whole[:3], whole[[0, 1, 2]])
    assert len(whole[5]) == 1 and len(whole[[]]) == 0
    np.testing.assert_array_equal(whole[-1].outline(0)[0], whole.outline(len(whole) - 1)[0])
    assert same(concat([whole[:10], whole[10:]]), whole)
    mixed = concat([whole[10:], whole[:10]]).to_geojson(tmp_path / "mixed.geojson")
    assert mixed.read_bytes() == whole.to_geojson(tmp_path / "whole.geojson").read_bytes()


def test_nuclei_of_two_images_are_not_joined(rgb: NDArray[np.uint8], model: Model, whole: Nuclei) -> None:
    with pytest.raises(ValueError, match="different slides"):
        concat([whole, segment_image(rgb[:64, :64], model, mpp=0.25)])
    with pytest.raises(ValueError, match="empty"):
        concat([])
    with pytest.raises(IndexError):
        _ = whole[len(whole)]


def test_a_plot_shows_outlines_in_the_region(slide: Path, whole: Nuclei) -> None:
    picture = np.asarray(whole.plot(slide, region=(600, 700, 512, 256)))
    assert picture.shape == (256, 512, 3)
    reader = open_slide(slide)
    bare = reader.read(0, Box(700, 600, 256, 512))
    changed = (picture != bare).any(axis=2)
    reader.close()
    assert 0.01 < changed.mean() < 0.3
    assert max(whole.plot(slide, edge=200).size) <= 200


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros((8, 8, 3)), TypeError, "uint8"),
        (np.zeros((8, 8), np.uint8), ValueError, "height, width, 3"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, "height, width, 3"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, "height, width, 3"),
    ],
)
def test_wrong_images_are_refused(image: NDArray[np.uint8], error: type[Exception], text: str, model: Model) -> None:
    with pytest.raises(error, match=text):
        segment_image(image, model, mpp=0.25)


def test_importing_the_api_is_cheap_and_lists_its_names() -> None:
    code = "import sys, nuclix.engine as e; print(sorted({'numpy', 'torch'} & set(sys.modules)), 'segment' in dir(e))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["[]", "True"]
    assert api.__version__
    with pytest.raises(AttributeError):
        _ = api.no_such_name
