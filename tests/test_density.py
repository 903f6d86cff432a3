"""What is counted while nuclei are written, and the pictures that are made of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nuclix.engine.geometry import Box, Scale
from nuclix.engine.report.pictures import BUDGET_BYTES, LEVELS, density_top, density_uri, edge_for, read_thumbnail
from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.segmentation.summary import (
    AREA_BIN_UM2,
    AREA_BINS,
    SlideSummary,
    SummaryAccumulator,
    area_quantiles,
    density,
    read_summary,
    write_summary,
)
from nuclix.engine.slide.thumbnail import EDGE, encoded, thumbnail
from nuclix.engine.slide.tissue import Overview, read_overview, tissue_mask
from nuclix.engine.slide.view import SlideView
from slides import ArrayReader, reduced, smooth_image


def objects_at(places: np.ndarray, pixels: np.ndarray) -> Objects:
    count = len(places)
    empty = np.zeros(0, np.int64)
    return Objects(
        places.astype(np.int64), pixels.astype(np.int64), np.zeros(count + 1, np.int64), np.zeros(0, bool),
        empty, np.zeros((0, 2), np.int32), np.zeros(count, np.int32), {},
    )  # fmt: skip


def view_of(height: int, width: int, um: float = 0.25, bounds: Box | None = None) -> SlideView:
    reader = ArrayReader([np.zeros((height, width, 3), np.uint8)], um, bounds)
    return SlideView(reader, Scale(um), Scale(um))


@pytest.mark.parametrize("bounds", [None, Box(200, 100, 900, 1500)])
def test_every_nucleus_is_counted_once_where_it_lies(bounds: Box | None) -> None:
    rng = np.random.default_rng(0)
    view = view_of(1500, 2000, bounds=bounds)
    box = bounds or Box(0, 0, 1500, 2000)
    places = np.stack([rng.integers(box.row, box.row_end, 5000), rng.integers(box.col, box.col_end, 5000)], axis=1)
    pixels = rng.integers(20, 9000, 5000)
    accumulator = SummaryAccumulator(view)
    for part in np.array_split(np.arange(5000), 7):
        accumulator.add(objects_at(places[part], pixels[part]))
    summary = accumulator.result()
    rows, cols = summary.counts.shape
    expected, *_ = np.histogram2d(
        places[:, 0], places[:, 1], (rows, cols), ((box.row, box.row_end), (box.col, box.col_end))
    )
    np.testing.assert_array_equal(summary.counts, expected)
    assert summary.cell_mm2 * rows * cols == pytest.approx(box.area * 0.25**2 / 1e6)
    assert summary.area_sum == pytest.approx(pixels.sum() * 0.0625)
    assert summary.areas.sum() == 5000 and summary.areas[-1] == (pixels * 0.0625 >= AREA_BIN_UM2 * AREA_BINS).sum()


def test_nuclei_that_reach_out_of_the_bounds_are_not_lost() -> None:
    accumulator = SummaryAccumulator(view_of(400, 400, bounds=Box(100, 100, 200, 200)))
    accumulator.add(objects_at(np.array([[95, 150], [150, 95], [299, 299], [300, 300]]), np.full(4, 100)))
    assert accumulator.result().counts.sum() == 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1), (30, 70)])
def test_slides_of_any_shape_have_a_map(shape: tuple[int, int]) -> None:
    class Sized(ArrayReader):
        pass

    reader = Sized([np.zeros((1, 1, 3), np.uint8)], 0.25, Box(0, 0, *shape))
    accumulator = SummaryAccumulator(SlideView(reader, Scale(0.25), Scale(0.25)))
    accumulator.add(objects_at(np.array([[0, 0]]), np.array([50])))
    assert accumulator.result().counts.sum() == 1 and max(accumulator.result().counts.shape) <= 96


def summary_of(counts: np.ndarray, cell_mm2: float = 0.01) -> SlideSummary:
    return SlideSummary(counts.astype(np.int64), cell_mm2, np.zeros(AREA_BINS + 1, np.int64), 0.0)


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1000)))
def test_smoothing_moves_nuclei_and_loses_none(counts: np.ndarray) -> None:
    smooth = density(summary_of(counts))
    assert smooth.shape == counts.shape and smooth.min() >= 0
    assert smooth.sum() * 0.01 == pytest.approx(counts.sum())


@given(st.lists(st.floats(0, 499), min_size=1, max_size=200))
def test_quantiles_are_those_of_the_nuclei_but_for_the_bins(values: list[float]) -> None:
    areas = np.bincount((np.array(values) / AREA_BIN_UM2).astype(int), minlength=AREA_BINS + 1)
    for share, found in zip((0.1, 0.5, 0.9), area_quantiles(areas, (0.1, 0.5, 0.9)) or (), strict=True):
        low = np.quantile(values, share, method="inverted_cdf")
        high = np.quantile(values, share, method="higher")
        assert low - AREA_BIN_UM2 - 1e-9 <= found <= high + AREA_BIN_UM2 + 1e-9


def test_no_nuclei_have_no_median() -> None:
    assert area_quantiles(np.zeros(AREA_BINS + 1, np.int64), (0.5,)) is None
    huge = np.zeros(AREA_BINS + 1, np.int64)
    huge[-1] = 3
    assert area_quantiles(huge, (0.5,)) == (AREA_BINS * AREA_BIN_UM2,)


def test_a_summary_comes_back_and_a_broken_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    summary = summary_of(np.arange(6).reshape(2, 3))
    write_summary(path, summary)
    back = read_summary(path)
    assert back is not None and back.cell_mm2 == summary.cell_mm2
    np.testing.assert_array_equal(back.counts, summary.counts)
    content = path.read_bytes()
    for broken in (b"", b"PK", content[: len(content) // 2], content.replace(b"counts", b"COUNTS")):
        path.write_bytes(broken)
        assert read_summary(path) is None
    assert read_summary(tmp_path / "missing.npz") is None
    np.savez(path, format=1, counts=np.zeros(3), areas=np.zeros(2), numbers=np.zeros(2))
    assert read_summary(path) is None


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_map_is_clear_on_glass_and_strongest_where_it_is_densest() -> None:
    counts = np.zeros((20, 30), np.int64)
    counts[5:15, 5:25] = 10
    counts[8:12, 10:20] = 100
    image = np.asarray(decoded(density_uri(summary_of(counts), 10_000)).convert("RGBA"))
    assert image.shape == (20, 30, 4)
    assert image[0, 0, 3] == 0 < image[6, 6, 3] < image[10, 15, 3]
    assert len(np.unique(image[..., 3])) <= LEVELS


def test_the_scale_serves_all_slides_and_is_round() -> None:
    assert density_top([]) == density_top([summary_of(np.zeros((3, 3)))]) == 1.0
    top = density_top([summary_of(np.full((9, 9), 31)), summary_of(np.full((9, 9), 7))])
    assert 3100 <= top <= 4000 and top % 500 == 0


@given(st.integers(0, 10**5))
def test_all_thumbnails_of_a_page_have_a_bound(count: int) -> None:
    edge = edge_for(count)
    assert 96 <= edge <= EDGE
    assert edge == 96 or count * edge**2 * 0.25 <= BUDGET_BYTES


def test_a_thumbnail_shows_the_bounds_of_the_slide_small() -> None:
    image = smooth_image(1400, 2600)
    reader = ArrayReader([image, reduced(image, 4)], bounds=Box(200, 400, 1000, 2000))
    small = thumbnail(reader, None)
    assert 480 <= small.size[0] <= 512 and small.size[0] == 2 * small.size[1]
    wanted = Image.fromarray(image[200:1200, 400:2400]).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(wanted, float)).mean() < 3


def test_a_small_slide_is_not_blown_up() -> None:
    assert thumbnail(ArrayReader([smooth_image(90, 70)]), None).size == (70, 90)


def test_a_huge_level_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclix.engine.slide.thumbnail.DIRECT_PIXELS", 1000)
    image = smooth_image(600, 800)
    reader = ArrayReader([image], bounds=Box(100, 200, 400, 400))
    view = SlideView(reader, Scale(0.25), Scale(0.25))
    overview = read_overview(reader, view)
    reader.reads.clear()
    small = thumbnail(reader, overview)
    assert not reader.reads
    shape = np.ceil(np.array([400, 400]) / overview.downsample)
    assert abs(small.size[1] - shape[0]) <= 1 and abs(small.size[0] - shape[1]) <= 1
    assert np.asarray(small).mean() == pytest.approx(image[100:500, 200:600].mean(), abs=4)


def test_an_overview_that_is_there_already_gives_the_same_tissue() -> None:
    reader = ArrayReader([smooth_image(600, 800)])
    view = SlideView(reader, Scale(0.25), Scale(0.25))
    overview = read_overview(reader, view)
    assert isinstance(overview, Overview)
    np.testing.assert_array_equal(tissue_mask(reader, view, overview).mask, tissue_mask(reader, view).mask)


def test_pictures_come_into_the_page_no_larger_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(smooth_image(256, 512))))
    picture = read_thumbnail(path, 512)
    assert picture is not None
    uri, size = picture.uri, (picture.width, picture.height)
    assert size == (512, 256) and base64.b64decode(uri.partition(",")[2]) == path.read_bytes()
    picture = read_thumbnail(path, 100)
    assert picture is not None
    uri, size = picture.uri, (picture.width, picture.height)
    assert size == (512, 256) and decoded(uri).size == (100, 50)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0broken", None])
def test_a_picture_that_is_none_is_left_out(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    assert read_thumbnail(path, 512) is None
