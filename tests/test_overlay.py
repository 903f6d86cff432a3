"""The overlay: outlines land on the pixels that they go around, whatever the window, scale and bounds."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.geometry import Box
from nuclix.engine.report.overlay import Window, draw_overlay, write_overlay

RED = (250, 0, 0)


class ArrayReader:
    """A slide of one level in memory."""

    priority: ClassVar[int] = 0

    def __init__(self, image: NDArray[np.uint8], bounds: Box | None = None) -> None:
        self.image = image
        level = Level(image.shape[0], image.shape[1], 1.0)
        self.info = SlideInfo(Path("array"), "test", (level,), None, bounds)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    @classmethod
    def open(cls, path: Path) -> Self:
        raise NotImplementedError

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        assert level == 0
        out = np.full((*box.shape, 3), 255, np.uint8)
        inside = box.intersect(Box(0, 0, *self.image.shape[:2]))
        out[inside.slices(box)] = self.image[inside.slices()]
        return out

    def close(self) -> None:
        return None


def feature(rings: list[list[list[float]]], color: tuple[int, int, int] | None = RED) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "detection"}
    if color is not None:
        properties["classification"] = {"name": "Nucleus", "color": list(color)}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": properties}


def square(row: int, col: int, edge: int) -> list[list[float]]:
    corners = [[col, row], [col + edge, row], [col + edge, row + edge], [col, row + edge], [col, row]]
    return [[float(x), float(y)] for x, y in corners]


def save(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def slide() -> ArrayReader:
    return ArrayReader(np.full((60, 90, 3), 200, np.uint8))


def drawn(reader: ArrayReader, geojson: Path, window: Window, color: tuple[int, int, int] = RED) -> NDArray[np.bool_]:
    return np.asarray((np.asarray(draw_overlay(reader, geojson, window)) == color).all(axis=2))


def test_outline_is_within_a_pixel_of_its_square_and_nowhere_else(slide: ArrayReader, tmp_path: Path) -> None:
    path = save(tmp_path / "a.geojson", feature([square(20, 30, 10)]))
    marked = drawn(slide, path, Window(Box(0, 0, 60, 90)))
    rows, cols = np.nonzero(marked)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (20, 30, 30, 40)
    assert not marked[22:28, 32:38].any(), "the inside stays as the slide has it"
    assert marked.sum() == 4 * 10


def test_window_and_downsample_move_and_shrink_it(slide: ArrayReader, tmp_path: Path) -> None:
    path = save(tmp_path / "a.geojson", feature([square(20, 30, 20)]))
    marked = drawn(slide, path, Window(Box(10, 20, 40, 60), 2.0))
    assert marked.shape == (20, 30)
    rows, cols = np.nonzero(marked)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (5, 15, 5, 15)


def test_coordinates_are_relative_to_the_slides_bounds(tmp_path: Path) -> None:
    slide = ArrayReader(np.full((60, 90, 3), 200, np.uint8), bounds=Box(7, 11, 40, 50))
    path = save(tmp_path / "a.geojson", feature([square(0, 0, 10)]))
    whole = drawn(slide, path, Window(Box(0, 0, 60, 90)))
    rows, cols = np.nonzero(whole)
    assert (rows.min(), cols.min()) == (7, 11)
    window = Window.of_slide(slide.info, edge=2048)
    assert window == Window(Box(7, 11, 40, 50), 1.0)
    assert np.array_equal(drawn(slide, path, window), whole[7:47, 11:61])


def test_holes_are_outlined_and_class_less_objects_too(slide: ArrayReader, tmp_path: Path) -> None:
    path = save(tmp_path / "a.geojson", feature([square(10, 10, 30), square(20, 20, 10)], color=None))
    marked = drawn(slide, path, Window(Box(0, 0, 60, 90)), (0, 255, 0))
    assert marked[20, 25]
    assert marked[10, 25]


def test_gzip_empty_and_outside(slide: ArrayReader, tmp_path: Path) -> None:
    path = save(tmp_path / "a.geojson", feature([square(0, 0, 5)]))
    packed = tmp_path / "a.geojson.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    everything = Window(Box(0, 0, 60, 90))
    assert np.array_equal(drawn(slide, packed, everything), drawn(slide, path, everything))
    assert not drawn(slide, path, Window(Box(20, 20, 10, 10))).any()
    empty = save(tmp_path / "empty.geojson")
    assert not drawn(slide, empty, everything).any()


@pytest.mark.parametrize(("edge", "downsample"), [(90, 1.0), (60, 2.0), (20, 5.0), (1000, 1.0)])
def test_a_whole_slide_fits_the_edge(slide: ArrayReader, tmp_path: Path, edge: int, downsample: float) -> None:
    window = Window.of_slide(slide.info, edge)
    assert window.downsample == downsample
    image = draw_overlay(slide, save(tmp_path / "e.geojson"), window)
    assert max(image.size) <= edge


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", '{"features": [{"properties": {}, "geometry": {"type": "Point"}}]}', '{"features": 3}'],
)
def test_what_is_no_geojson_is_said_to_be_none(slide: ArrayReader, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bad\.geojson"):
        draw_overlay(slide, path, Window(Box(0, 0, 9, 9)))


def test_missing_input_and_impossible_output(slide: ArrayReader, tmp_path: Path) -> None:
    window = Window(Box(0, 0, 9, 9))
    with pytest.raises(DataError, match="none"):
        draw_overlay(slide, tmp_path / "none.geojson", window)
    path = save(tmp_path / "a.geojson")
    for target in (tmp_path / "nowhere" / "x.png", tmp_path / "x.nosuchformat"):
        with pytest.raises(OutputError, match=target.name):
            write_overlay(slide, path, target, window)
    write_overlay(slide, path, tmp_path / "x.png", replace(window, downsample=3.0))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
