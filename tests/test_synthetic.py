"""The made-up slide: as a scanner writes it, the same for the same seed, and true to its labels."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2hed

from nuclix.engine.errors import OutputError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.open import open_slide
from nuclix.engine.slide.synthetic import SyntheticSlide, make_synthetic_slide
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import CHECKS, Check, check_against_openslide

SIZE = 1024
WHOLE = Box(0, 0, SIZE, SIZE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSlide:
    return make_synthetic_slide(tmp_path_factory.mktemp("made") / "made.svs", SIZE, seed=3)


def pixels(path: Path, box: Box = WHOLE) -> np.ndarray:
    slide = open_slide(path)
    try:
        return slide.read(0, box)
    finally:
        slide.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_is_a_slide(check: Check, made: SyntheticSlide) -> None:
    check(TiffSlideReader, made.path)


def test_openslide_reads_it_too(made: SyntheticSlide) -> None:
    check_against_openslide(TiffSlideReader, made.path)


def test_facts(made: SyntheticSlide) -> None:
    slide = open_slide(made.path)
    slide.close()
    assert slide.info.vendor == "aperio"
    assert slide.info.scale == Scale(0.25)
    assert [(level.height, level.downsample) for level in slide.info.levels] == [(1024, 1.0), (256, 4.0)]
    assert (made.height, made.width) == (SIZE, SIZE)


def test_a_seed_is_a_slide(made: SyntheticSlide, tmp_path: Path) -> None:
    again = make_synthetic_slide(tmp_path / "again.svs", SIZE, seed=3)
    other = make_synthetic_slide(tmp_path / "other.svs", SIZE, seed=4)
    assert again.path.read_bytes() == made.path.read_bytes()
    assert (again.nuclei == made.nuclei).all()
    assert (pixels(other.path) != pixels(made.path)).any()


@pytest.mark.parametrize(("size", "edge"), [(1, 256), (256, 256), (257, 512), (1300, 1536)])
def test_sizes_are_whole_tiles(size: int, edge: int, tmp_path: Path) -> None:
    made = make_synthetic_slide(tmp_path / "a.svs", size)
    slide = open_slide(made.path)
    slide.close()
    assert (slide.info.levels[0].height, slide.info.levels[0].width) == (made.height, made.width) == (edge, edge)


def test_labels_do_not_depend_on_the_box(made: SyntheticSlide) -> None:
    whole = made.labels(WHOLE)
    for box in (Box(100, 200, 300, 333), Box(0, 0, 1, SIZE), Box(511, 511, 2, 2)):
        assert (made.labels(box) == whole[box.slices()]).all()
    frame = WHOLE.expand(20)
    assert (made.labels(frame)[WHOLE.slices(frame)] == whole).all()


def test_labels_are_nuclei(made: SyntheticSlide) -> None:
    """Most are whole and of a nucleus' size; some touch their neighbours."""
    labels = made.labels(WHOLE)
    areas = np.bincount(labels.ravel(), minlength=len(made) + 1)[1:] * 0.25**2
    seen = areas > 0
    assert seen.mean() > 0.9
    assert 15 < np.median(areas[seen]) < 70
    pieces = sum(ndimage.label(labels == number)[1] for number in range(1, 40))
    assert pieces < 45
    touching = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert touching.any()


def test_nuclei_are_blue_and_the_rest_is_pink(made: SyntheticSlide) -> None:
    """Haematoxylin, as an independent library separates it, is where the labels say."""
    image, labels = pixels(made.path), made.labels(WHOLE)
    haematoxylin = rgb2hed(image)[..., 0]
    inside, outside = haematoxylin[labels > 0], haematoxylin[labels == 0]
    cut = (np.median(inside) + np.median(outside)) / 2
    assert (inside > cut).mean() > 0.9
    assert (outside < cut).mean() > 0.97
    red, green, blue = np.moveaxis(image[labels == 0].astype(int), -1, 0)
    assert (green > red + 8).mean() < 0.01
    assert (blue > red + 25).mean() < 0.05


def test_there_is_glass_and_tissue(made: SyntheticSlide) -> None:
    background = (pixels(made.path).min(axis=2) > 230).mean()
    assert 0.1 < background < 0.7


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    tracemalloc.start()
    make_synthetic_slide(tmp_path / "a.svs", 1536)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_an_impossible_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/a\.svs: can't be written"):
        make_synthetic_slide(tmp_path / "none" / "a.svs", 256)
    with pytest.raises(ValueError, match="0 px"):
        make_synthetic_slide(tmp_path / "a.svs", 0)
