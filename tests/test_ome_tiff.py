"""OME-TIFF and ImageJ: planes, pyramids in SubIFDs, several images, and the scale with its unit."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._scale import OME_UNITS_UM, ome_image
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import CHECKS, Check, check_cut_short
from slides import noise_image, reduced, smooth_image
from vendors import write_ome

LAYOUTS = ("interleaved", "planes", "pages")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("check", [check for check in CHECKS if check is not check_cut_short], ids=lambda c: c.__name__)
def test_conformance(check: Check, layout: str, tmp_path: Path) -> None:
    check(TiffSlideReader, write_ome(tmp_path / "a.ome.tif", smooth_image(777, 905), layout, (1, 2, 4)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_of_every_level(layout: str, tmp_path: Path) -> None:
    image = noise_image(512, 640)
    with closing(TiffSlideReader.open(write_ome(tmp_path / "a.ome.tif", image, layout, (1, 2, 4)))) as slide:
        assert [(level.height, level.width) for level in slide.info.levels] == [(512, 640), (256, 320), (128, 160)]
        for level, down in enumerate((1, 2, 4)):
            size = slide.info.levels[level]
            assert (slide.read(level, Box(0, 0, size.height, size.width)) == reduced(image, down)).all()
        assert slide.info.vendor == "ome"
        assert slide.info.scale_source == "OME-XML"
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(0.25)


@pytest.mark.parametrize("unit", ["µm", "nm", "mm", "cm", "m", "pm", "Å", "in"])
def test_units(unit: str, tmp_path: Path) -> None:
    size = 0.5 / OME_UNITS_UM[unit]
    units = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    with closing(TiffSlideReader.open(write_ome(tmp_path / "a.ome.tif", noise_image(64, 64), **units))) as slide:
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong"])
def test_a_size_in_pixels_is_no_scale(unit: str, tmp_path: Path) -> None:
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    path = write_ome(tmp_path / "a.ome.tif", noise_image(64, 64))
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata
    assert xml is not None
    for name, value in units.items():
        xml = xml.replace(f'{name}="µm"', f'{name}="{value}"')
    found = ome_image(xml)
    assert found is not None
    assert found.scale is None


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", noise_image(64, 64), PhysicalSizeY=0.27)
    with pytest.raises(SlideError, match=r"not square \(0.25 x 0.27 um, from OME-XML\)"):
        TiffSlideReader.open(path)


@pytest.mark.parametrize(
    ("channels", "reads"),
    [
        ({"Name": ["R", "G", "B"]}, True),
        ({"Name": ["Red", "Green", "Blue"]}, True),
        ({"Color": [-16776961, 16711935, 65535]}, True),
        ({"Color": [-1, -1, -1]}, True),
        ({"Name": ["DAPI", "FITC", "Cy5"]}, False),
        ({"Color": [65535, 16711935, -16776961]}, False),
    ],
    ids=str,
)
def test_channels_that_are_no_colours(channels: dict[str, Any], reads: bool, tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", noise_image(64, 64), "pages", Channel=channels)
    if reads:
        TiffSlideReader.open(path).close()
        return
    with pytest.raises(SlideError, match=r"three channels .* not red, green and blue"):
        TiffSlideReader.open(path)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_other_numbers_of_channels(channels: int, tmp_path: Path) -> None:
    data = np.zeros((channels, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(SlideError, match=f"has {channels} channels"):
        TiffSlideReader.open(tmp_path / "a.ome.tif")


def test_the_largest_image_is_read(tmp_path: Path) -> None:
    image = noise_image(300, 400)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(image[:90, :80].copy(), photometric="rgb", metadata={"Name": "Label"})
        file.write(image, photometric="rgb", metadata={"Name": "Slide"})
    with closing(TiffSlideReader.open(tmp_path / "a.ome.tif")) as slide:
        assert (slide.read(0, Box(0, 0, 300, 400)) == image).all()
        assert slide.info.associated == ("label",)


def test_significant_bits_say_what_white_is(tmp_path: Path) -> None:
    image = noise_image(64, 64)
    deep = np.rint(image.astype(float) * 4095 / 255).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(deep, photometric="rgb", metadata={"axes": "YXS", "SignificantBits": 12})
    with closing(TiffSlideReader.open(tmp_path / "a.ome.tif")) as slide:
        assert np.abs(slide.read(0, Box(0, 0, 64, 64)).astype(int) - image).max() == 0


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "nm"])
def test_imagej_scale(unit: str, tmp_path: Path) -> None:
    per_pixel = 250.0 if unit == "nm" else 0.25
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise_image(64, 64),
        imagej=True,
        photometric="rgb",
        resolution=(1 / per_pixel, 1 / per_pixel),
        metadata={"unit": unit},
    )
    with closing(TiffSlideReader.open(tmp_path / "a.tif")) as slide:
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(0.25, rel=1e-6)
        assert slide.info.scale_source == "ImageJ"
        assert slide.info.vendor == "imagej"
