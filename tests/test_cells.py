"""Cells: nuclei grown in tiles, compared with the growth of the whole image."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.segmentation import cells as module
from nuclix.engine.segmentation.cells import AREA_RATIO, CellMaker, cell_measurement_names
from nuclix.engine.segmentation.coordinates import level0_corners
from nuclix.engine.segmentation.measure import MeasurementSettings, objects_of
from nuclix.engine.segmentation.objects import PROBABILITY, Objects, concatenate, take
from nuclix.engine.slide.array import ArrayReader
from nuclix.engine.slide.view import SlideView
from nuclix.ext.expansion import expand_labels
from nuclix.ext.stains import stain_statistics
from nuclix.plugins.writers.geojson import GeoJSONWriter
from nuclix.testing.writer import header

UM = 0.5
SIZE = 220
REACH_UM = 4.0  # 8 px
PIXELS = MeasurementSettings("pixel", families=("shape", "stain", "stain-od"), cell_expansion=REACH_UM)


def scene() -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return discs that touch, lie near each other or at the edge, and pixels."""
    random = np.random.default_rng(11)
    rows, cols = np.indices((SIZE, SIZE))
    labels = np.zeros((SIZE, SIZE), np.int32)
    for number in range(1, 90):
        row, col = random.integers(-2, SIZE + 2, 2)
        disc = (rows - row) ** 2 + (cols - col) ** 2 <= random.integers(2, 9) ** 2
        labels[disc & (labels == 0)] = number
    for number in np.unique(labels)[1:]:  # what a later disc has cut in two is no nucleus
        own = labels == number
        if shapely.union_all([shapely.box(c, r, c + 1, r + 1) for r, c in np.argwhere(own)]).geom_type != "Polygon":
            labels[own] = 0
    return labels, random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


LABELS, RGB = scene()
SCORES = np.full(LABELS.shape, 0.5, np.float32)


def nuclei(settings: MeasurementSettings) -> Objects:
    return objects_of(LABELS, SCORES, Box(0, 0, SIZE, SIZE), UM, settings, RGB)


def cells(settings: MeasurementSettings, tile: int, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> Objects:
    """Return the cells in order of first pixel, made in tiles of `tile` from nuclei in random order."""
    found = nuclei(settings)
    found = take(found, np.random.default_rng(seed).permutation(len(found)))
    monkeypatch.setattr(module, "ORDER_CELL", tile)
    monkeypatch.setattr("nuclix.engine.segmentation.objects.ORDER_CELL", tile)
    view = SlideView(ArrayReader(RGB, UM), Scale(UM), Scale(UM))
    made = concatenate(list(CellMaker(found, view, settings).blocks(2)))
    return take(made, np.lexsort((made.first[:, 1], made.first[:, 0])))


def polygons(objects: Objects) -> NDArray[Any]:
    rings = zip(objects.offsets[:-1], objects.offsets[1:], strict=True)
    return np.array([shapely.Polygon(objects.corners[start:end]) for start, end in rings])


@pytest.mark.parametrize("outline", ["smooth", "pixel"])
def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch, outline: Any) -> None:
    settings = replace(PIXELS, outline=outline)
    whole = cells(settings, 4096, monkeypatch)
    for tile in (16, 64):
        found = cells(settings, tile, monkeypatch, seed=tile)
        assert list(found.measurements) == list(cell_measurement_names(UM, settings))
        for name in ("first", "offsets", "corners", "cell_offsets", "cell_corners"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), name)
        for name, values in whole.measurements.items():
            np.testing.assert_allclose(found.measurements[name], values, rtol=1e-12, atol=1e-12, err_msg=name)


def test_cells_are_the_grown_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along pixel edges: each cell has the pixels that the growth of the whole image gives it, and no other."""
    found = cells(PIXELS, 64, monkeypatch)
    grown = expand_labels(LABELS, REACH_UM / UM)
    shapes, inner = polygons(found.boundaries), polygons(found)
    order = [LABELS[row, col] for row, col in found.first]
    for number, (label, shape, nucleus) in enumerate(zip(order, shapes, inner, strict=True)):
        filled = shapely.union_all([shapely.box(r, c, r + 1, c + 1) for r, c in np.argwhere(grown == label)])
        assert shape.equals(shapely.Polygon(filled.exterior)) or filled.geom_type != "Polygon"
        assert shape.covers(nucleus)
        assert found.measurements["Cell: Area µm^2"][number] == pytest.approx(shape.area * UM**2)
    ratio = found.measurements["Nucleus: Area µm^2"] / found.measurements["Cell: Area µm^2"]
    np.testing.assert_allclose(found.measurements[AREA_RATIO], ratio)
    assert shapely.union_all(shapes).area == pytest.approx(sum(shape.area for shape in shapes))


def test_smooth_cells_hold_their_nuclei(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth outlines differ from the pixels by fractions of a pixel, also where nucleus and cell meet."""
    found = cells(replace(PIXELS, outline="smooth"), 64, monkeypatch)
    shapes, inner = polygons(found.boundaries), polygons(found)
    assert shapely.is_valid(shapes).all()
    assert shapely.covers(shapely.buffer(shapes, 2.0), inner).all()
    assert shapely.area(shapely.difference(inner, shapes)).sum() < 0.02 * shapely.area(inner).sum()
    assert shapely.union_all(shapes).area > 0.97 * shapely.area(shapes).sum()


def test_stains_of_cell_and_cytoplasm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cells(PIXELS, 64, monkeypatch)
    grown = expand_labels(LABELS, REACH_UM / UM)
    for number in (0, 7, len(found) - 1):
        label = LABELS[tuple(found.first[number])]
        for part, mask in (("Cell", grown == label), ("Cytoplasm", (grown == label) & (LABELS == 0))):
            expected = stain_statistics(mask, RGB)
            for stain, name in enumerate(("Hematoxylin", "Eosin")):
                for key, values in (("Mean", expected.mean), ("Median", expected.median), ("Std.Dev.", expected.std)):
                    measured = found.measurements[f"{part}: {name}: {key}"][number]
                    assert measured == pytest.approx(values[0, stain], abs=1e-6)
                assert found.measurements[f"{part}: {name} OD max"][number] == pytest.approx(expected.max[0, stain])
    names = list(found.measurements)
    assert "Nucleus: Hematoxylin: Mean" in names
    assert "Nucleus: Hematoxylin OD sum" in names
    assert "Cell: Hematoxylin OD sum" not in names
    assert PROBABILITY in names


def written(objects: Objects, path: Path, slide: SlideHeader) -> list[dict[str, Any]]:
    session = GeoJSONWriter().open(path, slide)
    session.write(objects)
    session.commit()
    return list(json.loads(path.read_bytes())["features"])


def test_geojson_of_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = cells(replace(PIXELS, outline="smooth"), 64, monkeypatch)
    slide = replace(header(), downsample=1.5, origin=(3.0, 2.0))
    features = written(found, tmp_path / "a.geojson", slide)
    assert len(features) == len(found)
    shown = found.boundaries
    corners, inner = level0_corners(shown, slide), level0_corners(found, slide)
    for number, feature in enumerate(features):
        assert list(feature) == ["type", "id", "geometry", "nucleusGeometry", "properties"]
        assert feature["properties"]["objectType"] == "cell"
        for key, points, offsets in (("geometry", corners, shown.offsets), ("nucleusGeometry", inner, found.offsets)):
            ring = points[offsets[number] : offsets[number + 1]]
            assert feature[key]["type"] == "Polygon"
            np.testing.assert_allclose(feature[key]["coordinates"][0], [*ring, ring[0]], atol=1e-9)


def test_parquet_of_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    geopandas = pytest.importorskip("geopandas")
    from nuclix.plugins.writers.parquet import GeoParquetWriter

    found = cells(replace(PIXELS, outline="smooth"), 64, monkeypatch)
    session = GeoParquetWriter().open(tmp_path / "a.parquet", header())
    session.write(found)
    session.commit()
    frame = geopandas.read_parquet(io.BytesIO((tmp_path / "a.parquet").read_bytes()))
    assert frame.geometry.area.gt(frame["nucleus_geometry"].area * 0.99).all()
    assert list(frame[AREA_RATIO]) == pytest.approx(found.measurements[AREA_RATIO].tolist())


def test_no_cells_without_a_distance() -> None:
    view = SlideView(ArrayReader(RGB, UM), Scale(UM), Scale(UM))
    with pytest.raises(ValueError, match="no cells"):
        CellMaker(nuclei(replace(PIXELS, cell_expansion=None)), view, replace(PIXELS, cell_expansion=None))
