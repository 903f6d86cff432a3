"""Slides laid out as scanners' makers do: the conformance suite, and OpenSlide's pixels."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import tiffslide
from PIL import Image

from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.plugins.readers._samples import ycbcr_to_rgb
from nuclix.plugins.readers._tiff_layout import _aperio_properties
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import CHECKS, Check, check_against_openslide, check_cut_short, check_recognition
from slides import aperio_description, noise_image, padded, smooth_image, write_slide
from vendors import write_ndpi, write_scn


@pytest.fixture(scope="module")
def ndpi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ndpi(tmp_path_factory.mktemp("ndpi") / "a.ndpi", smooth_image(768, 1024), 0.23)


@pytest.fixture(scope="module")
def scn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    regions = [(100, 200, smooth_image(300, 400, 1)), (600, 700, smooth_image(256, 200, 2))]
    return write_scn(tmp_path_factory.mktemp("scn") / "a.scn", regions, (1000, 1200))


@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_recognition], ids=lambda check: check.__name__)
def test_ndpi_conforms(check: Check, ndpi: Path) -> None:
    check(TiffSlideReader, ndpi)


def test_ndpi_is_openslides(ndpi: Path) -> None:
    check_against_openslide(TiffSlideReader, ndpi)


def test_ndpi_facts(ndpi: Path) -> None:
    slide = TiffSlideReader.open(ndpi)
    assert slide.info.vendor == "hamamatsu"
    assert slide.info.scale is not None
    assert slide.info.scale.mpp == pytest.approx(0.23, rel=1e-3)
    assert len(slide.info.levels) == 3
    slide.close()


@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_cut_short], ids=lambda check: check.__name__)
def test_scn_conforms(check: Check, scn: Path) -> None:
    check(TiffSlideReader, scn)


def test_scn_is_openslides(scn: Path) -> None:
    check_against_openslide(TiffSlideReader, scn)


def test_scn_regions_lie_on_white_inside_the_bounds(scn: Path) -> None:
    slide = TiffSlideReader.open(scn)
    assert slide.info.scale == Scale(0.25)
    assert slide.info.vendor == "leica"
    assert slide.info.bounds == Box(100, 200, 756, 700)
    whole = slide.read(0, Box(0, 0, 1000, 1200)).astype(int)
    first = padded(smooth_image(300, 400, 1), Box(-100, -200, 600, 1200)).astype(int)
    assert np.abs(whole[:600] - first).mean() < 2
    assert (whole[100:400, 650:] == 255).all()
    slide.close()


def test_aperio_ycbcr_in_jpeg_2000(tmp_path: Path) -> None:
    """Compression 33003 holds YCbCr that the codec does not know of."""
    image = smooth_image(256, 256)
    ycbcr = np.asarray(Image.fromarray(image).convert("YCbCr"))
    path = tmp_path / "a.svs"
    tiles = [
        imagecodecs.jpeg2k_encode(ycbcr[row : row + 128, col : col + 128], level=0, codecformat="j2k", mct=False)
        for row in (0, 128)
        for col in (0, 128)
    ]
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter(tiles),
            shape=image.shape,
            dtype=np.uint8,
            tile=(128, 128),
            compression=33003,
            photometric="rgb",
            metadata=None,
            description=aperio_description(0.25),
        )
        file.write(image[::4, ::4].copy(), photometric="rgb", metadata=None, description=aperio_description(0.25))
    slide = TiffSlideReader.open(path)
    assert np.abs(slide.read(0, Box(0, 0, 256, 256)).astype(int) - image).max() <= 3  # YCbCr is rounded
    slide.close()
    check_against_openslide(TiffSlideReader, path)


@pytest.mark.parametrize("mpp", [0.25, 0.2527, None])
def test_what_is_read_of_an_svs_is_what_tiffslide_reads(mpp: float | None, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", smooth_image(256, 256), mpp=mpp)
    with tiffslide.TiffSlide(path) as slide:
        theirs = slide.properties
        ours = _aperio_properties(slide.ts_tifffile)
    from_tags = set() if mpp else {"tiffslide.mpp-x", "tiffslide.mpp-y"}  # tiffslide's are those of the resolution tags
    assert ours["tiffslide.vendor"] == "aperio"
    for name in ours.keys() - from_tags:
        assert theirs.get(name) == ours[name]


@pytest.mark.parametrize(("overlap", "fits"), [("0", True), ("00", True), ("24", False), ("-8", False), ("010", False)])
def test_ventana_tiles_must_not_overlap(overlap: str, fits: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.bif"
    joints = f'<EncodeInfo><iScan/><TileJointInfo OverlapX="{overlap}" OverlapY="0"/></EncodeInfo>'.encode()
    image = smooth_image(256, 256)
    with tifffile.TiffWriter(path) as file:
        file.write(
            image,
            tile=(128, 128),
            photometric="rgb",
            metadata=None,
            software="ScanOutputManager 1.1",
            description="level=0 mag=40 quality=95",
            extratags=[(700, 1, len(joints), joints, True)],
        )
    if fits:
        slide = TiffSlideReader.open(path)
        assert slide.info.vendor == "ventana"
        assert (slide.read(0, Box(0, 0, 256, 256)) == image).all()
        slide.close()
    else:
        with pytest.raises(SlideError, match=r"a\.bif: .*overlap"):
            TiffSlideReader.open(path)


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_but_white_lies_around_scn_regions(count: int, tmp_path: Path) -> None:
    """Memory that was used before must not shine through where no region was scanned."""
    regions = [(100, 200, smooth_image(300, 400, 1)), (600, 700, smooth_image(256, 200, 2))][:count]
    slide = TiffSlideReader.open(write_scn(tmp_path / "a.scn", regions, (1000, 1200)))
    for level in range(2):
        whole = Box(0, 0, slide.info.levels[level].height, slide.info.levels[level].width)
        for shade in (7, 99):
            dirty = [np.full((*whole.shape, 3), shade, np.uint8) for _ in range(3)]
            del dirty
            image = slide.read(level, whole)
            for row, col, region in regions:
                down = 1 if level == 0 else 4
                size = region.shape[0] // down, region.shape[1] // down
                image[row // down : row // down + size[0], col // down : col // down + size[1]] = 255
            assert (image == 255).all()
    slide.close()


def test_scn_of_one_region_is_openslides(tmp_path: Path) -> None:
    path = write_scn(tmp_path / "a.scn", [(100, 200, smooth_image(300, 400, 1))], (1000, 1200))
    check_against_openslide(TiffSlideReader, path)


def test_ycbcr_is_pillows() -> None:
    ycbcr = noise_image(64, 64)
    expected = np.asarray(Image.fromarray(ycbcr, "YCbCr").convert("RGB"))
    assert np.abs(ycbcr_to_rgb(ycbcr).astype(int) - expected).max() <= 1
