"""Regions of a slide: chosen, computed alone, and with the nuclei that the whole slide has there."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import shape

from end_to_end import PATCH, config_for, make_model, make_slide
from nuclix.engine.batch.slide_table import list_slides
from nuclix.engine.cli.main import main
from nuclix.engine.errors import DataError, SlideError, UsageError
from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.region import RegionPatches, RegionShapes
from nuclix.engine.segmentation.regions import regions_of
from nuclix.engine.slide.region_file import box_regions, chosen_regions, read_regions

LESION = [[20, 30], [200, 10], [260, 190], [150, 120], [60, 260]]  # concave
HOLE = [[100, 60], [170, 60], [170, 110], [100, 110]]
STROMA = [[280, 300], [370, 300], [330, 410]]


def feature(name: str, kind: str, corners: Sequence[Sequence[float]], **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
        "properties": {
            "objectType": "annotation",
            **({"name": name} if name else {}),
            **({"classification": {"name": kind, "color": [200, 0, 10]}} if kind else {}),
            **properties,
        },
    }


def write(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return write(
        tmp_path / "slide.geojson",
        feature("lesion", "Tumor", LESION),
        feature("", "Necrosis", HOLE),
        feature("edge", "Stroma", STROMA),
        feature("nucleus", "Tumor", STROMA, objectType="detection"),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}},
    )


@dataclass(frozen=True)
class Runs:
    """The features of a run of the whole slide, and the output folder of one limited to regions."""

    whole: list[dict[str, Any]]
    out: Path

    @property
    def features(self) -> list[dict[str, Any]]:
        return json.loads((self.out / "slide.geojson").read_bytes())["features"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("regions")
    slide, model = make_slide(folder / "slide.tif"), make_model(folder / "model.pt")
    (folder / "regions").mkdir()
    write(
        folder / "regions" / "slide.geojson",
        feature("lesion", "Tumor", LESION),
        feature("", "Necrosis", HOLE),
        feature("edge", "Stroma", STROMA),
    )
    common = ["run", str(slide), "--model", str(model), "--device", "cpu", "--block", "96", "--no-tissue", "--quiet"]
    assert main([*common, "--out", str(folder / "whole")]) == 0
    limits = ["--regions", str(folder / "regions"), "--region-exclude", "necrosis", "--region", "300,20,60,60"]
    assert main([*common, *limits, "--out", str(folder / "out")]) == 0
    whole = json.loads((folder / "whole" / "slide.geojson").read_bytes())["features"]
    return Runs(whole, folder / "out")


def detections(features: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in features if item["properties"]["objectType"] == "detection"}


def test_nuclei_of_regions_are_those_of_the_whole_slide(runs: Runs) -> None:
    effective = shapely.union_all(
        [
            shapely.Polygon(LESION).difference(shapely.Polygon(HOLE)),
            shapely.Polygon(STROMA),
            shapely.box(300, 20, 360, 80),
        ]
    )
    found, whole = detections(runs.features), detections(runs.whole)
    assert all(found[name] == whole[name] for name in found)
    centres = {name: shape(item["geometry"]).centroid for name, item in whole.items()}
    near = {name for name, centre in centres.items() if effective.boundary.distance(centre) < 0.05}
    inside = {name for name, centre in centres.items() if effective.contains(centre)}
    assert set(found) - near == inside - near
    assert len(inside) > 20


def test_only_patches_of_regions_are_computed(runs: Runs) -> None:
    counts = json.loads((runs.out / "slide.json").read_bytes())["counts"]
    assert counts["tiles"] < 0.75 * -(-420 // 16) * -(-380 // 16)


def test_regions_are_written_as_locked_annotations_and_counted(runs: Runs) -> None:
    found = [item for item in runs.features if item["properties"]["objectType"] == "annotation"]
    assert [item["properties"]["name"] for item in found] == ["Region 300,20,60,60", "lesion", "edge"]
    assert all(item["properties"]["isLocked"] for item in found)
    lesion = found[1]
    assert lesion["properties"]["classification"]["name"] == "Tumor"
    assert shape(lesion["geometry"]).area == pytest.approx(
        shapely.Polygon(LESION).difference(shapely.Polygon(HOLE)).area
    )
    record = json.loads((runs.out / "slide.json").read_bytes())
    with (runs.out / "regions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    nuclei = [shape(item["geometry"]).centroid for item in detections(runs.features).values()]
    for item, facts, row in zip(found, record["regions"], table, strict=True):
        area = shape(item["geometry"])
        assert facts["nuclei"] == sum(area.intersects(point) for point in nuclei) == int(row["nuclei"])
        assert facts["area_mm2"] == pytest.approx(area.area * 0.25**2 / 1e6)
        assert facts["nuclei_per_mm2"] == pytest.approx(facts["nuclei"] / facts["area_mm2"])
        assert item["properties"]["measurements"]["Num Nuclei"] == facts["nuclei"]
        assert float(row["nuclei_per_mm2"]) == pytest.approx(facts["nuclei_per_mm2"], rel=1e-5)
    assert "lesion" in (runs.out / "report.html").read_text()
    assert record["counts"]["tissue_mm2"] == pytest.approx(sum(row["area_mm2"] for row in record["regions"]), rel=0.01)


def test_the_page_of_a_slide_outlines_its_regions(runs: Runs) -> None:
    page = (runs.out / "report-slides" / "slide.html").read_text()
    picture = page[page.index('<svg class="regions" viewBox="0 0 380 420"') :]
    outlines = [text.split('"')[0] for text in picture.split(' d="')[1:7:2]]
    found = [item for item in runs.features if item["properties"]["objectType"] == "annotation"]
    for outline, item in zip(outlines, found, strict=True):
        rings = [[tuple(map(float, xy.split())) for xy in ring.split("L")] for ring in outline[1:-1].split("ZM")]
        assert shapely.Polygon(rings[0], rings[1:]).symmetric_difference(shape(item["geometry"])).area < 1
    table = page[page.index('<section id="regions">') :]
    for facts in json.loads((runs.out / "slide.json").read_bytes())["regions"]:
        assert facts["name"] in table
        assert f'<td class="num">{facts["nuclei"]:,}</td>' in table


def test_annotations_are_chosen_by_class_and_name(annotations: Path) -> None:
    every = read_regions(annotations)
    assert [(region.name, region.kind.name) for region in every] == [
        ("lesion", "Tumor"), ("Region 2", "Necrosis"), ("edge", "Stroma")
    ]  # fmt: skip
    assert every[0].kind.color == (200, 0, 10)
    assert [region.name for region in chosen_regions(every, ["tumor"], [], "x")] == ["lesion"]
    assert [region.name for region in chosen_regions(every, ["edge", "Tumor"], [], "x")] == ["lesion", "edge"]
    cut = chosen_regions(every, [], ["Necrosis"], "x")
    assert [region.name for region in cut] == ["lesion", "edge"]
    assert cut[0].shape.area == every[0].shape.area - every[1].shape.area
    with pytest.raises(DataError, match=r"x: no region is left; it has Tumor, lesion, Necrosis"):
        chosen_regions(every, ["Tumour"], [], "x")
    with pytest.raises(DataError, match="covers all of them"):
        chosen_regions(every, ["Necrosis"], ["Tumor"], "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"{", "not a GeoJSON file"),
        (b'{"features": 3}', "no features"),
        (b"[1, 2]", "no features"),
        (b'{"features": []}', "no annotation with an area"),
        (b'{"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [1, 1]]]}', "coordinates can't be used"),
        (b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1e999], [1, 1]]]}', "not finite"),
        (b'{"features": [{"geometry": {}, "properties": 3}]}', "not a GeoJSON feature"),
        (b"\x1f\x8bxx", "can't be read"),
    ],
)
def test_files_that_are_no_regions_are_refused(value: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(value)
    with pytest.raises(DataError, match=text) as error:
        read_regions(path)
    assert str(path) in str(error.value)


def test_geometries_of_all_forms_are_read(tmp_path: Path) -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    packed = feature("a", "", [[0, 0], [4, 0], [4, 4]], classification={"name": "T", "colorRGB": -3670016})
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps([bow_tie, packed]).encode()))
    crossed, old = read_regions(path)
    assert crossed.shape.area == 50
    assert old.kind.color == (200, 0, 0)


def test_files_are_found_by_the_name_of_the_slide(tmp_path: Path) -> None:
    write(tmp_path / "a.geojson", feature("one", "", LESION))
    write(tmp_path / "b.svs.geojson", feature("two", "", LESION))
    write(tmp_path / "c.geojson", feature("three", "", LESION))
    config = RunConfig(regions=str(tmp_path))
    names = [regions_of(config, Path("/slides") / name)[0].name for name in ("a.svs", "b.svs", "c.ome.tif")]
    assert names == ["one", "two", "three"]
    with pytest.raises(SlideError, match=r"no file for it in .*add d\.geojson or d\.svs\.geojson"):
        regions_of(config, Path("/slides/d.svs"))
    assert regions_of(RunConfig(), Path("a.svs")) == ()


def test_a_run_checks_its_regions_before_it_starts(tmp_path: Path, annotations: Path) -> None:
    for name in ("a.tif", "b.tif"):
        make_slide(tmp_path / "slides" / name, height=40, width=40)
    config = config_for(tmp_path / "out", tmp_path / "model.pt", tmp_path / "slides")
    with pytest.raises(UsageError, match="is one file, but there are 2 slides"):
        list_slides(replace(config, regions=str(annotations)))
    with pytest.raises(UsageError, match="no such file or folder"):
        list_slides(replace(config, regions=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="X,Y,WIDTH,HEIGHT"):
        list_slides(replace(config, region=("1,2,3",)))


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,3,4,5", "0,0,0,5", "0,0,5,-1", "0,0,inf,1", "nan,0,1,1"])
def test_boxes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--region"):
        box_regions([text])


def clumps_of(seed: int, edge: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(edge, edge)), rng.uniform(1, 5))
    return noise > np.quantile(noise, rng.uniform(0.5, 0.95))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_patches_hold_every_clump_that_touches_the_regions(seed: int, context: int) -> None:
    rng = np.random.default_rng(seed)
    edge = int(rng.integers(60, 150))
    mask = clumps_of(seed, edge)
    shapes = [
        shapely.convex_hull(shapely.multipoints(rng.uniform(-10, edge + 10, (4, 2)))).difference(
            shapely.box(30, 30, 50, 60)
        )
        for _ in range(int(rng.integers(1, 4)))
    ]
    grid = TileGrid(edge, edge, PATCH, 32)
    patches = RegionPatches(RegionShapes(shapes), grid, None, context)
    found = True
    while found:
        computed = chosen_pixels(patches, grid)
        for row in range(grid.unit_rows):
            for col in range(grid.unit_cols):
                box = grid.unit_box(row, col)
                patches.record(box, (mask & computed)[box.slices()])
        found = patches.extend()
    patches.complete()
    computed = chosen_pixels(patches, grid)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    touched = np.unique(labels[inside_pixels(shapes, edge)])
    needed = ndimage.binary_dilation(np.isin(labels, touched[touched > 0]), np.ones((3, 3)), context + 1)
    assert not (needed & ~computed).any()


def chosen_pixels(patches: RegionPatches, grid: TileGrid) -> NDArray[np.bool_]:
    out = np.zeros((grid.height, grid.width), np.bool_)
    for row in range(0, grid.height, PATCH.valid):
        for col in range(0, grid.width, PATCH.valid):
            box = Box(row, col, PATCH.valid, PATCH.valid)
            near = patches.within(box, PATCH.margin)
            if near is not None:
                out[near.slices()] = True
    return out


def inside_pixels(shapes: Sequence[Any], edge: int) -> NDArray[np.bool_]:
    rows, cols = np.mgrid[:edge, :edge]
    return shapely.intersects_xy(shapely.union_all(list(shapes)), cols.ravel() + 0.5, rows.ravel() + 0.5).reshape(
        edge, edge
    )
