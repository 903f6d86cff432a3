"""Reading, resampling and tissue compared with the libraries that they could have been left to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.resample import area_taps, linear_taps
from nuclix.engine.slide.synthetic import make_synthetic_slide
from nuclix.engine.slide.tissue import tissue_mask
from nuclix.engine.slide.view import SlideView
from nuclix.ext.resample import box_mean, separable
from nuclix.plugins.readers.tiffslide import TiffSlideReader

SIZE, BOX, STEP = 4096, 1024, 928  # boxes overlap, as patches with margins do
BOXES = [Box(row, col, BOX, BOX) for row in range(0, SIZE - BOX, STEP) for col in range(0, SIZE - BOX, STEP)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic_slide(tmp_path_factory.mktemp("bench") / "slide.svs", SIZE).path


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)


def speed(benchmark: Any, work: Callable[[], object], pixels: int) -> None:
    benchmark.pedantic(work, rounds=5, warmup_rounds=1)
    benchmark.extra_info["Mpx/s"] = round(pixels / 1e6 / benchmark.stats["min"], 1)


@pytest.mark.benchmark(group="overlapping boxes of 1024 x 1024")
class TestBoxes:
    """One thread, neighbouring boxes."""

    def test_nuclix(self, benchmark: Any, slide: Path) -> None:
        def work() -> None:
            reader = TiffSlideReader.open(slide)
            for box in BOXES:
                reader.read(0, box)
            reader.close()

        speed(benchmark, work, len(BOXES) * BOX**2)

    def test_openslide(self, benchmark: Any, slide: Path) -> None:
        import openslide

        def work() -> None:
            with openslide.OpenSlide(slide) as reader:
                for box in BOXES:
                    np.asarray(reader.read_region((box.col, box.row), 0, (BOX, BOX)))

        speed(benchmark, work, len(BOXES) * BOX**2)

    def test_tiffslide(self, benchmark: Any, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import tiffslide

        monkeypatch.setenv("TIFFSLIDE_NUM_DECODE_THREADS", "1")

        def work() -> None:
            with tiffslide.TiffSlide(slide) as reader:
                for box in BOXES:
                    reader.read_region((box.col, box.row), 0, (BOX, BOX), as_array=True)

        speed(benchmark, work, len(BOXES) * BOX**2)

    def test_tifffile_and_zarr(self, benchmark: Any, slide: Path) -> None:
        import tifffile
        import zarr

        def work() -> None:
            with tifffile.TiffFile(slide) as file:
                array = zarr.open_array(file.series[0].aszarr(level=0, maxworkers=1), mode="r")
                for box in BOXES:
                    np.asarray(array[box.slices()])

        speed(benchmark, work, len(BOXES) * BOX**2)


@pytest.mark.benchmark(group="2048 x 2048 to half")
class TestHalf:
    """Box means, the usual resampling."""

    def test_nuclix(self, benchmark: Any, image: np.ndarray) -> None:
        speed(benchmark, lambda: box_mean(image, 2), image[..., 0].size)

    def test_pillow(self, benchmark: Any, image: np.ndarray) -> None:
        from PIL import Image

        speed(benchmark, lambda: np.asarray(Image.fromarray(image).reduce(2)), image[..., 0].size)

    def test_numpy(self, benchmark: Any, image: np.ndarray) -> None:
        def work() -> np.ndarray:
            return (image.reshape(1024, 2, 1024, 2, 3).sum(axis=(1, 3), dtype=np.uint16) + 2) // 4

        speed(benchmark, work, image[..., 0].size)

    def test_opencv(self, benchmark: Any, image: np.ndarray) -> None:
        cv2 = pytest.importorskip("cv2")
        speed(benchmark, lambda: cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_AREA), image[..., 0].size)


@pytest.mark.benchmark(group="to 1024 x 1024 at an odd ratio")
@pytest.mark.parametrize("factor", [0.5, 0.813, 1.37, 2.6])
class TestOdd:
    """Area averages and interpolation with exact weights."""

    def test_nuclix(self, benchmark: Any, factor: float) -> None:
        taps = (area_taps if factor > 1 else linear_taps)(0, 1024, factor)
        source = np.random.default_rng(0).integers(0, 256, (taps.stop - taps.start,) * 2 + (3,), dtype=np.uint8)
        speed(benchmark, lambda: separable(source, taps.relative, taps.relative), 1 << 20)

    def test_opencv(self, benchmark: Any, factor: float) -> None:
        cv2 = pytest.importorskip("cv2")
        size = round(1024 * factor)
        source = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        method = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
        speed(benchmark, lambda: cv2.resize(source, (1024, 1024), interpolation=method), 1 << 20)


@pytest.mark.benchmark(group="tissue")
def test_tissue(benchmark: Any, slide: Path) -> None:
    def work() -> None:
        reader = TiffSlideReader.open(slide)
        tissue_mask(reader, SlideView(reader, Scale(0.25), Scale(0.25)))
        reader.close()

    speed(benchmark, work, SIZE**2)
