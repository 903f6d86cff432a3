"""The built-in readers: the conformance suite, OpenSlide's pixels, and facts of the formats."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.open import open_slide
from nuclix.plugins.readers import _tiff_layout
from nuclix.plugins.readers import image as image_module
from nuclix.plugins.readers.image import ImageReader
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import CHECKS, Check, check_against_openslide
from slides import noise_image, smooth_image, write_slide
from vendors import write_ndpi

HEIGHT, WIDTH = 777, 905  # no multiple of a tile, and larger than the conformance suite's windows
KINDS = ("jpeg.svs", "none.svs", "plain.tif", "plain.png", "plain.jpg", "plain.webp", "plain.bmp")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    image = smooth_image(HEIGHT, WIDTH)
    write_slide(folder / "jpeg.svs", image, downs=(1, 4, 16))
    write_slide(folder / "none.svs", image, compression="none")
    for name in KINDS[2:]:
        Image.fromarray(image).save(folder / name)
    return folder


def reader_of(name: str) -> type[SlideReader]:
    return TiffSlideReader if name.endswith((".svs", ".tif")) else ImageReader


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, name: str, slides: Path) -> None:
    check(reader_of(name), slides / name)


@pytest.mark.parametrize("name", KINDS)
def test_one_reader_recognises_it(name: str, slides: Path) -> None:
    assert [reader.recognises(slides / name) for reader in (TiffSlideReader, ImageReader)].count(True) == 1
    slide = open_slide(slides / name)
    assert type(slide) is reader_of(name)
    slide.close()


@pytest.mark.parametrize("name", ["jpeg.svs", "none.svs"])
def test_pixels_are_openslides(name: str, slides: Path) -> None:
    check_against_openslide(TiffSlideReader, slides / name)


@pytest.mark.shared
def test_a_real_slide(shared: Path) -> None:
    path = shared / "slides" / "CMU-1-Small-Region.svs"
    for check in CHECKS:
        check(TiffSlideReader, path)
    check_against_openslide(TiffSlideReader, path, tolerance=0)
    slide = TiffSlideReader.open(path)
    assert slide.info.scale == Scale(0.499)
    assert slide.info.vendor == "aperio"
    slide.close()


@pytest.mark.parametrize("name", ["none.svs", "plain.tif", "plain.png", "plain.bmp"])
def test_lossless_pixels(name: str, slides: Path) -> None:
    slide = open_slide(slides / name)
    assert (slide.read(0, Box(0, 0, HEIGHT, WIDTH)) == smooth_image(HEIGHT, WIDTH)).all()
    slide.close()


def test_nothing_is_said_aloud(slides: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slide = open_slide(slides / "jpeg.svs")
    slide.close()
    logging.getLogger("tifffile").error("what the library has to say")
    assert capfd.readouterr() == ("", "")


def test_tiles_are_decoded_once_for_neighbouring_boxes(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = TiffSlideReader.open(slides / "jpeg.svs")
    slide.read(0, Box(0, 0, 300, 300))
    with monkeypatch.context() as patch:
        patch.setattr(slide, "_file", _EndedFile())  # a further read of the file fails
        slide.read(0, Box(100, 100, 284, 284))
        with pytest.raises(SlideError, match="tile in row 0, column 3"):
            slide.read(0, Box(0, 400, 10, 10))
    slide.close()


class _EndedFile:
    def read(self, offset: int, count: int) -> bytes:
        raise EOFError("reaches past the end of the file")


def test_a_full_cache_changes_no_pixel(slides: Path) -> None:
    slide, other = (TiffSlideReader.open(slides / "jpeg.svs") for _ in range(2))
    slide._cache._max = 1
    box = Box(0, 0, HEIGHT, WIDTH)
    assert (slide.read(0, box) == other.read(0, box)).all()
    assert len(slide._cache._tiles) == 1
    slide.close()
    other.close()


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg", "plain.webp", "plain.bmp"])
def test_plain_images_do_not_say_their_scale(name: str, slides: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    with Image.open(slides / name) as image:
        image.save(path, dpi=(72, 72))
    slide = ImageReader.open(path)
    assert slide.info.scale is None
    assert slide.info.vendor == "image"
    slide.close()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_kinds_of_png(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(noise_image(40, 50)).convert(mode)
    picture.save(tmp_path / "a.png")
    slide = ImageReader.open(tmp_path / "a.png")
    assert (slide.read(0, Box(0, 0, 40, 50)) == np.asarray(picture.convert("RGB"))).all()
    slide.close()


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([noise_image(10, 10), np.zeros((10, 10), np.uint8)])
    rgba[:5, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = ImageReader.open(tmp_path / "a.png").read(0, Box(0, 0, 10, 10))
    assert (pixels[:5] == rgba[:5, :, :3]).all()
    assert (pixels[5:] == 255).all()


def test_a_cameras_orientation_is_ignored_as_qupath_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth_image(40, 60)).save(tmp_path / "a.jpg", exif=exif)
    level = ImageReader.open(tmp_path / "a.jpg").info.levels[0]
    assert (level.height, level.width) == (40, 60)


def test_images_beyond_pillows_limit_are_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise_image(40, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert ImageReader.open(tmp_path / "a.png").read(0, Box(0, 0, 40, 60)).any()
    monkeypatch.setattr(image_module, "MAX_PIXELS", 2000)
    with pytest.raises(SlideError, match=r"a\.png: 60 x 40 px are too many"):
        ImageReader.open(tmp_path / "a.png")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SlideError, match=r"deep\.png: .*convert it to 8-bit RGB"):
        ImageReader.open(tmp_path / "deep.png")


def test_one_thread_does_not_change_the_warning_filters_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings are errors here: the second slide is read when the first, opened before it, is done."""
    path = write_ndpi(tmp_path / "a.ndpi", smooth_image(128, 256), 0.25, (1,))  # tiffslide warns of this maker's files
    usual, steps = _tiff_layout._maker_properties, {name: threading.Event() for name in ("in", "both in", "done")}

    def in_turn(path: Path, tiff: Any) -> dict[str, Any]:
        if not steps["in"].is_set():
            steps["in"].set()
            assert steps["both in"].wait(timeout=30)
        else:
            steps["both in"].set()
            assert steps["done"].wait(timeout=30)
        return usual(path, tiff)

    def width() -> int:
        with TiffSlideReader.open(path) as slide:
            steps["done"].set()
            return slide.info.levels[0].width

    monkeypatch.setattr(_tiff_layout, "_maker_properties", in_turn)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(width)
        assert steps["in"].wait(timeout=30)
        assert [pool.submit(width).result(), first.result()] == [256, 256]


def test_a_with_block_closes_a_slide(slides: Path) -> None:
    for name in ("jpeg.svs", "plain.png"):
        with open_slide(slides / name) as slide:
            assert slide.read(0, Box(0, 0, 5, 5)).shape == (5, 5, 3)
        with pytest.raises(ValueError, match="read after close"):
            slide.read(0, Box(0, 0, 5, 5))
