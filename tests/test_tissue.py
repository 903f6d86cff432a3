"""The tissue mask: finds what is there, nothing on background, and never loses a slide that is all tissue."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, maximum_filter
from skimage.filters import threshold_otsu

from nuclix.engine.errors import Interrupted
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide import tissue
from nuclix.engine.slide import view as slide
from nuclix.engine.slide.open import open_slide, slide_scale
from nuclix.engine.slide.synthetic import make_synthetic_slide
from nuclix.engine.slide.tissue import TissueMask, otsu_threshold, tissue_mask
from nuclix.engine.slide.view import SlideView
from slides import ArrayReader

BACKGROUND = (243, 242, 244)
EOSIN = (226, 160, 190)
PALE = (232, 216, 226)  # mucin, fat, pale stroma
INK = (4, 3, 5)


def painted(size: int, *patches: tuple[Box, tuple[int, int, int]], noise: float = 2.0) -> NDArray[np.uint8]:
    image = np.empty((size, size, 3))
    image[:] = BACKGROUND
    for box, colour in patches:
        image[box.slices()] = colour
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def mask_of(image: NDArray[np.uint8], um: float = 2.0, model: float = 2.0) -> TissueMask:
    reader = ArrayReader([image], scale=um)
    return tissue_mask(reader, SlideView(reader, Scale(model), Scale(um)))


@given(st.lists(st.integers(0, 255), min_size=2, max_size=300).filter(lambda values: len(set(values)) > 1))
def test_otsu_is_scikit_images(values: list[int]) -> None:
    array = np.array(values, np.uint8)
    assert otsu_threshold(array) == threshold_otsu(array.reshape(1, -1))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.randoms(use_true_random=False))
def test_tissue_is_grown_in_the_chessboard_metric(height: int, width: int, radius: int, random: Random) -> None:
    mask = np.array([[random.random() < 0.1 for _ in range(width)] for _ in range(height)])
    square = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    np.testing.assert_array_equal(tissue._dilated(mask, radius), binary_dilation(mask, square))


@pytest.mark.parametrize("values", [[], [7], [9, 9, 9]])
def test_otsu_of_nothing_to_part(values: list[int]) -> None:
    assert 0 <= otsu_threshold(np.array(values, np.uint8)) <= 255


@pytest.mark.parametrize("noise", [0.0, 2.0, 4.0])
@pytest.mark.parametrize("colour", [BACKGROUND, (255, 255, 255), (236, 234, 229), (228, 231, 236)])
def test_background_holds_nothing(colour: tuple[int, int, int], noise: float) -> None:
    mask = mask_of(painted(400, (Box(0, 0, 400, 400), colour), noise=noise))
    assert not mask.mask.any()
    assert mask.area_mm2 == 0


@pytest.mark.parametrize("colour", [EOSIN, PALE, (120, 70, 150), (180, 178, 181)])
def test_all_tissue_is_all_tissue(colour: tuple[int, int, int]) -> None:
    assert mask_of(painted(400, (Box(0, 0, 400, 400), colour))).mask.all()


def test_pale_tissue_beside_dark_is_kept() -> None:
    """Otsu alone would part the dark from the pale."""
    mask = mask_of(painted(400, (Box(0, 0, 400, 200), (90, 40, 130)), (Box(0, 200, 400, 200), PALE)))
    assert mask.mask.all()


def test_the_membranes_of_fat_are_tissue() -> None:
    """Fat: empty cells of 80 um, membranes of 3 um between them, where its nuclei lie."""
    image = painted(1600)
    for start in range(0, 1600, 160):
        image[start : start + 6] = image[:, start : start + 6] = (215, 160, 195)
    mask = mask_of(image, um=0.5, model=0.5)
    boxes = [Box(row, col, 6, 6) for row in range(0, 1600, 160) for col in range(0, 1594, 10)]
    assert np.mean([mask.within(box, 0) is not None for box in boxes]) > 0.99


def test_tissue_on_glass() -> None:
    mask = mask_of(painted(400, (Box(100, 120, 80, 160), EOSIN)))
    rows, cols = np.nonzero(mask.mask)
    grown = tissue.DILATION
    assert (rows.min(), rows.max() + 1) == (25 - grown, 45 + grown)
    assert (cols.min(), cols.max() + 1) == (30 - grown, 70 + grown)
    assert mask.area_mm2 == pytest.approx(160e-3 * 320e-3, rel=0.01)


def test_one_nucleus_on_glass_is_tissue() -> None:
    """A lone lymphocyte, 7 um across, wherever it lies on the mask's grid."""
    for shift in range(0, 32, 5):
        image = painted(1024)
        image[500 + shift : 528 + shift, 500 + shift : 528 + shift] = (90, 60, 140)
        mask = mask_of(image, um=0.25, model=0.25)
        assert mask.within(Box(500, 500, 20, 20), 0)
        assert not mask.within(Box(0, 0, 300, 1024), 0)


def test_borders_and_ink_are_no_tissue_and_no_crash() -> None:
    image = painted(400, (Box(0, 0, 400, 60), INK), (Box(0, 0, 30, 400), (0, 0, 0)), (Box(200, 200, 60, 60), EOSIN))
    mask = mask_of(image)
    assert mask.within(Box(210, 210, 1, 1), 0)
    assert not mask.within(Box(0, 0, 400, 40), 0)
    assert not mask_of(np.zeros((400, 400, 3), np.uint8)).mask.any()


def test_grey_pictures_have_tissue_too() -> None:
    mask = mask_of(painted(400, (Box(100, 100, 200, 200), (140, 140, 140)), noise=0))
    assert mask.within(Box(150, 150, 1, 1), 0)
    assert not mask.within(Box(0, 0, 60, 60), 0)


@given(st.data())
def test_a_box_near_tissue_is_found_exactly_where_they_share_a_pixel(data: st.DataObject) -> None:
    """A part is found exactly where a pixel of the box lies on a pixel of the mask that is set."""
    downsample = data.draw(st.sampled_from([32.0, 16.0, 1.0, 0.5, 29.2, 3.7]))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((9, 7)) < 0.15
    row, col = data.draw(st.integers(-40, 300)), data.draw(st.integers(-40, 300))
    box = Box(row, col, data.draw(st.integers(0, 70)), data.draw(st.integers(0, 70)))
    expected = any(
        mask[y, x]
        for y in range(9)
        for x in range(7)
        if max(y * downsample, box.row) < min((y + 1) * downsample, box.row_end)
        and max(x * downsample, box.col) < min((x + 1) * downsample, box.col_end)
    )
    assert (TissueMask(mask, downsample, 0).within(box, 0) is not None) == expected


@given(st.data())
def test_the_part_of_a_box_near_tissue(data: st.DataObject) -> None:
    """It is the bounding box of the box's pixels that lie no further than the reach from a pixel of tissue."""
    downsample, reach = data.draw(st.sampled_from([1, 3, 8])), data.draw(st.integers(0, 20))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((9, 7)) < 0.1
    box = Box(*(data.draw(st.integers(-20, 60)) for _ in range(2)), *(data.draw(st.integers(1, 40)) for _ in range(2)))
    canvas = np.zeros((9 * 8 + 200, 7 * 8 + 200), np.bool_)  # the slide, and 100 px around it
    canvas[100 : 100 + 9 * downsample, 100 : 100 + 7 * downsample] = np.kron(mask, np.ones((downsample, downsample)))
    near = maximum_filter(canvas, 2 * reach + 1)
    rows, cols = np.nonzero(near[box.shift(100, 100).slices()])
    expected = None
    if len(rows):
        expected = Box.between(rows.min(), cols.min(), rows.max() + 1, cols.max() + 1).shift(box.row, box.col)
    assert TissueMask(mask, downsample, 0).within(box, reach) == expected


@pytest.mark.parametrize(("um", "model"), [(0.25, 0.25), (0.499, 0.25), (0.23, 0.5), (12.0, 6.0), (0.25, 0.34)])
def test_the_mask_lies_on_the_slide_at_every_scale(um: float, model: float) -> None:
    size = 640
    reader = ArrayReader([painted(size, (Box(320, 64, 128, 256), EOSIN))], scale=um)
    view = SlideView(reader, Scale(model), Scale(um))
    mask = tissue_mask(reader, view)

    def seen(row: int, col: int) -> bool:
        return mask.within(Box(int(row / view.downsample), int(col / view.downsample), 1, 1), 0) is not None

    assert all(seen(row, col) for row in (321, 384, 446) for col in (66, 200, 318))
    reach = 4 * 8 / um if um < 8 else 4
    assert not any(
        seen(row, col) for row, col in [(int(319 - reach), 200), (384, int(321 + reach))] if min(row, col) < size
    )


def test_coarse_levels_are_used() -> None:
    image = painted(1024, (Box(0, 0, 512, 1024), EOSIN))
    reader = ArrayReader([image, image[::4, ::4], image[::16, ::16]], scale=0.25)
    mask = tissue_mask(reader, SlideView(reader, Scale(0.25), Scale(0.25)))
    assert {level for level, _ in reader.reads} == {2}
    assert mask.mask[:16].all()


def test_a_large_slide_of_one_level_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(ArrayReader):
        def read(self, level: int, box: Box) -> NDArray[np.uint8]:
            assert box.area <= slide.PIECE_PX**2
            return np.full((*box.shape, 3), EOSIN, np.uint8)

    monkeypatch.setattr(slide, "PIECE_PX", 512)
    reader = Endless([np.broadcast_to(np.uint8(0), (6000, 8000, 3))], scale=0.25)  # type: ignore[list-item]
    tracemalloc.start()
    mask = tissue_mask(reader, SlideView(reader, Scale(0.25), Scale(0.25)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask.mask[:-1, :-1].all()
    assert peak < 8 << 20


def test_the_search_for_tissue_can_be_stopped_between_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1030, 700, 3), np.uint8)
    reader = ArrayReader([image], scale=2.0)
    view = SlideView(reader, Scale(2.0), slide_scale(reader.info))
    low = tissue.tissue_view(reader, view)
    monkeypatch.setattr(tissue, "_STRIP", 7)
    assert np.array_equal(tissue.read_overview(reader, view).pixels, low.read(low.box))

    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        tissue.read_overview(reader, view, stop)


def test_a_made_up_slide(tmp_path: Path) -> None:
    """Every nucleus that was drawn lies in the mask, and the background between the islands does not."""
    made = make_synthetic_slide(tmp_path / "a.svs", 1024, seed=3)
    reader = open_slide(made.path)
    view = SlideView(reader, Scale(0.25), Scale(0.25))
    mask = tissue_mask(reader, view)
    reader.close()
    assert all(mask.within(Box(int(row), int(col), 1, 1), 0) for row, col in made.nuclei[:, :2] if max(row, col) < 1024)
    assert 0.2 < mask.mask.mean() < 0.95


@pytest.mark.shared
def test_real_tissue(shared: Path) -> None:
    for path in sorted((shared / "data" / "kumar16" / "images").iterdir()):
        reader = open_slide(path)
        view = SlideView(reader, Scale(0.25), slide_scale(reader.info, 0.25))
        assert tissue_mask(reader, view).mask.mean() > 0.99
        reader.close()


@pytest.mark.shared
def test_a_real_slide(shared: Path) -> None:
    reader = open_slide(shared / "slides" / "CMU-1-Small-Region.svs")
    view = SlideView(reader, Scale(0.25), slide_scale(reader.info))
    mask = tissue_mask(reader, view)
    reader.close()
    assert 0.35 < mask.mask.mean() < 0.55
    assert 0.4 < mask.area_mm2 < 0.7
    assert mask.within(Box(2 * 1500, 2 * 1200, 1, 1), 0)  # dermis
    assert not mask.within(Box(2 * 1500, 2 * 100, 600, 400), 0)  # background


@pytest.mark.parametrize("levels", [(7, 7), (7, 8), (0, 255), (30, 90)])
def test_the_threshold_is_skimages_whatever_is_counted_at_a_time(
    levels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from skimage.filters import threshold_otsu

    from nuclix.engine.slide import tissue

    monkeypatch.setattr(tissue, "_CHUNK", 7)
    values = np.random.default_rng(1).integers(levels[0], levels[1] + 1, (11, 13)).astype(np.uint8)
    assert tissue.otsu_threshold(values) == int(threshold_otsu(values))
