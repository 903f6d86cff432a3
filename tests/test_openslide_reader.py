"""OpenSlide's reader: the conformance suite, tiffslide's pixels, and what happens without the library."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.plugins.readers import openslide as reader_module
from nuclix.plugins.readers.openslide import OpenSlideReader
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import CHECKS, Check, check_cut_short, check_recognition
from slides import noise_image, smooth_image, write_slide
from vendors import write_ndpi, write_scn, write_vms

SEAM = 3  # where a coarse level's corner lies between pixels OpenSlide interpolates at the tiles' edges


def write_svs(path: Path) -> Path:
    return write_slide(path.with_suffix(".svs"), smooth_image(1111, 1333), downs=(1, 4, 16))


def write_regions(path: Path) -> Path:
    regions = [(100, 200, smooth_image(300, 400, 1)), (600, 700, smooth_image(256, 200, 2))]
    return write_scn(path.with_suffix(".scn"), regions, (1000, 1200))


MADE: dict[str, Callable[[Path], Path]] = {
    "svs": write_svs,
    "ndpi": lambda path: write_ndpi(path.with_suffix(".ndpi"), smooth_image(768, 1024), 0.23),
    "scn": write_regions,
    "one scn": lambda path: write_scn(path.with_suffix(".scn"), [(96, 200, smooth_image(300, 400, 1))], (1000, 1200)),
    "vms": lambda path: write_vms(path.with_suffix(".vms"), smooth_image(768, 1024), 0.25),
}
# A copy under another name, or half of a file whose pixels are in others, is not what these checks are about
SKIPPED = {("vms", check_recognition), ("vms", check_cut_short), ("scn", check_cut_short), ("one scn", check_cut_short)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write(tmp_path_factory.mktemp("made") / "slide") for kind, write in MADE.items()}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, kind: str, made: dict[str, Path]) -> None:
    if (kind, check) not in SKIPPED:
        check(OpenSlideReader, made[kind])


def differences(path: Path, level: int) -> np.ndarray:
    with closing(TiffSlideReader.open(path)) as one, closing(OpenSlideReader.open(path)) as other:
        index = [(place.height, place.width) for place in other.info.levels].index(
            (one.info.levels[level].height, one.info.levels[level].width)
        )
        box = Box(0, 0, one.info.levels[level].height, one.info.levels[level].width)
        return np.abs(one.read(level, box).astype(int) - other.read(index, box))


@pytest.mark.parametrize("kind", ["svs", "ndpi", "scn", "one scn"])
def test_tiffslide_reads_the_same_pixels(kind: str, made: dict[str, Path]) -> None:
    assert differences(made[kind], 0).max() == 0
    coarse = differences(made[kind], 1)
    assert coarse.max() <= SEAM
    assert (coarse > 0).mean() < 0.02


def test_whole_downsamples_are_read_without_interpolation(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", noise_image(1024, 2048), downs=(1, 4), compression="none")
    assert differences(path, 1).max() == 0


@pytest.mark.shared
def test_tiffslide_reads_the_same_pixels_of_a_real_slide(shared: Path) -> None:
    path = shared / "slides" / "CMU-1-Small-Region.svs"
    for check in CHECKS:
        check(OpenSlideReader, path)
    assert differences(path, 0).max() == 0
    with closing(TiffSlideReader.open(path)) as one, closing(OpenSlideReader.open(path)) as other:
        assert one.info.scale == other.info.scale == Scale(0.499)
        assert one.info.levels == other.info.levels
        assert one.info.bounds is other.info.bounds is None
        assert one.info.objective_power == other.info.objective_power == 20
        assert set(one.info.associated) == set(other.info.associated) == {"thumbnail", "label", "macro"}


def test_facts(made: dict[str, Path]) -> None:
    with closing(OpenSlideReader.open(made["scn"])) as one, closing(TiffSlideReader.open(made["scn"])) as other:
        assert one.info.vendor == "leica"
        assert one.info.bounds == other.info.bounds == Box(100, 200, 756, 700)
        assert one.info.scale == other.info.scale == Scale(0.25)
        assert one.info.scale_source == "vendor metadata"
    with closing(OpenSlideReader.open(made["vms"])) as slide:
        assert slide.info.vendor == "hamamatsu"
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(0.25, rel=1e-3)
        assert slide.info.objective_power == 40
        image = smooth_image(768, 1024).astype(int)
        assert np.abs(slide.read(0, Box(0, 0, 768, 1024)) - image).mean() < 2


def test_scale_and_profile_of_a_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise_image(300, 300),
        photometric="rgb",
        tile=(128, 128),
        resolution=(40000, 40000),
        resolutionunit="centimeter",
        iccprofile=srgb(),
    )
    for reader in (OpenSlideReader, TiffSlideReader):
        with closing(reader.open(tmp_path / "a.tif")) as slide:
            assert slide.info.scale == Scale(0.25)
            assert slide.info.scale_source == "TIFF resolution"
            assert slide.info.icc_profile == srgb()


def srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_what_it_does_not_read(tmp_path: Path) -> None:
    Image.fromarray(noise_image(40, 40)).save(tmp_path / "a.png")
    assert not OpenSlideReader.recognises(tmp_path / "a.png")
    with pytest.raises(UnsupportedSlideError, match=r"a\.png: is not a slide that OpenSlide recognises"):
        OpenSlideReader.open(tmp_path / "a.png")
    assert not OpenSlideReader.recognises(tmp_path)


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", smooth_image(300, 300), downs=(1,))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.dataoffsets[4]
    content[place : place + 50] = bytes(50)
    path.write_bytes(content)
    with closing(OpenSlideReader.open(path)) as slide, pytest.raises(SlideError, match=r"a\.svs: level 0, x 0, y 0: "):
        slide.read(0, Box(0, 0, 300, 300))


@pytest.mark.parametrize("name", ["a.mrxs", "a.vms", "a.dcm"])
def test_without_the_library(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slide is recognised, and the message names the package to install."""
    (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name == "a.dcm" else b"anything")
    (tmp_path / "a.txt").write_text("anything")
    monkeypatch.setattr(reader_module, "_installed", lambda: False)
    assert OpenSlideReader.recognises(tmp_path / name)
    assert not OpenSlideReader.recognises(tmp_path / "a.txt")
    with pytest.raises(UnsupportedSlideError, match=r"pip install openslide-python openslide-bin"):
        OpenSlideReader.open(tmp_path / name)
