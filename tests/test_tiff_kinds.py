"""Every way to lay out 8-bit pixels in a TIFF reads alike; what is no 8-bit picture is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from slides import aperio_description, noise_image, smooth_image

HEIGHT, WIDTH = 200, 331
RGB = noise_image(HEIGHT, WIDTH)
GREY = RGB[..., 0]
WHOLE = Box(0, 0, HEIGHT, WIDTH)
TILED: dict[str, Any] = {"tile": (64, 48)}


def read(path: Path) -> NDArray[np.uint8]:
    slide = TiffSlideReader.open(path)
    try:
        assert (slide.read(0, Box(60, 40, 70, 99)) == slide.read(0, WHOLE)[60:130, 40:139]).all()
        return slide.read(0, WHOLE)
    finally:
        slide.close()


def grey_to_rgb(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"rowsperstrip": 1000, "compression": "deflate", "predictor": True},
        {"compression": "packbits", "rowsperstrip": 16},
        {**TILED},
        {**TILED, "compression": "lzw", "predictor": True},
        {**TILED, "compression": "zstd"},
        {**TILED, "compression": "jpeg2000"},
        {**TILED, "compression": "webp", "compressionargs": {"lossless": True}},
        {"tile": (16, 16)},
    ],
    ids=str,
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True], ids=["classic", "big"])
def test_layouts(layout: dict[str, Any], byteorder: str, bigtiff: bool, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, **layout)
    assert (read(tmp_path / "a.tif") == RGB).all()


@pytest.mark.parametrize("layout", [{}, TILED, {**TILED, "compression": "lzw"}], ids=str)
class TestPixels:
    """Kinds of samples, in strips and in tiles."""

    def test_grey(self, layout: dict[str, Any], tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", **layout)
        assert (read(tmp_path / "a.tif") == grey_to_rgb(GREY)).all()

    def test_inverted_grey(self, layout: dict[str, Any], tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite", **layout)
        assert (read(tmp_path / "a.tif") == grey_to_rgb(255 - GREY)).all()

    def test_palette(self, layout: dict[str, Any], tmp_path: Path) -> None:
        colours = noise_image(1, 256, seed=5)[0]
        colormap = colours.T.astype(np.uint16) * 257
        tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="palette", colormap=colormap, **layout)
        assert (read(tmp_path / "a.tif") == colours[GREY]).all()

    def test_alpha_lies_on_white(self, layout: dict[str, Any], tmp_path: Path) -> None:
        rgba = np.dstack([RGB, GREY])
        tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], **layout)
        alpha = GREY[..., None] / 255
        expected = np.floor(RGB * alpha + 255 * (1 - alpha) + 0.5)
        assert np.abs(read(tmp_path / "a.tif") - expected).max() <= 1e-6

    def test_premultiplied_alpha_lies_on_white(self, layout: dict[str, Any], tmp_path: Path) -> None:
        colour = (RGB // 2 * (GREY[..., None] / 255)).astype(np.uint8)
        tifffile.imwrite(
            tmp_path / "a.tif", np.dstack([colour, GREY]), photometric="rgb", extrasamples=["assocalpha"], **layout
        )
        assert (read(tmp_path / "a.tif") == colour + (255 - GREY[..., None])).all()

    def test_planes(self, layout: dict[str, Any], tmp_path: Path) -> None:
        planes = np.ascontiguousarray(np.moveaxis(RGB, 2, 0))
        tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", **layout)
        assert (read(tmp_path / "a.tif") == RGB).all()

    def test_cmyk(self, layout: dict[str, Any], tmp_path: Path) -> None:
        cmyk = np.dstack([RGB, GREY])
        tifffile.imwrite(tmp_path / "a.tif", cmyk, photometric="separated", **layout)
        expected = (255.0 - RGB) * (255 - GREY[..., None]) / 255
        assert np.abs(read(tmp_path / "a.tif") - expected).max() <= 0.5

    def test_16_bit_rgb(self, layout: dict[str, Any], tmp_path: Path) -> None:
        deep = np.minimum(RGB.astype(np.int64) * 257 + 100, 65535).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", **layout)
        assert (read(tmp_path / "a.tif") == RGB).all()


def test_planes_of_16_bits_big_endian(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(RGB.astype(np.uint16) * 257, 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", byteorder=">")
    assert (read(tmp_path / "a.tif") == RGB).all()


def test_bilevel(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY > 128, photometric="minisblack")
    assert (read(tmp_path / "a.tif") == grey_to_rgb((GREY > 128) * 255)).all()


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (
            GREY.astype(np.uint16),
            {"photometric": "minisblack"},
            "16-bit samples .*white",
        ),
        (np.dstack([RGB, GREY]).astype(np.uint16), {"photometric": "rgb"}, "4 16-bit samples"),
        (GREY.astype(np.float32), {"photometric": "minisblack"}, "32-bit floating-point samples"),
        (RGB.astype(np.int8), {"photometric": "rgb"}, "convert it"),
        (RGB, {"photometric": "cielab"}, "convert it to RGB"),
        (np.stack([RGB] * 3), {"photometric": "rgb"}, "export one plane"),
    ],
    ids=["16-bit grey", "16-bit RGBA", "float", "signed", "Lab", "stack"],
)
def test_other_pixels_are_refused(pixels: NDArray[Any], options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "odd.tif", pixels, **options)
    with pytest.raises(SlideError, match=rf"odd\.tif: .*{reason}"):
        TiffSlideReader.open(tmp_path / "odd.tif")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((40000, 40000), "centimeter", 0.25),
        ((40000, 40400), "centimeter", 0.25 / 1.01**0.5),
        ((50800, 50800), "inch", 0.5),
        ((72, 72), "inch", None),
        ((118, 118), "centimeter", None),
        ((1, 1), "none", None),
        ((10**7, 10**7), "centimeter", None),
    ],
)
def test_scale_from_the_resolution(
    resolution: tuple[int, int], unit: str, expected: float | None, tmp_path: Path
) -> None:
    """Resolutions that microscopes have are believed; an editor's or a printer's dots per inch are not."""
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", resolution=resolution, resolutionunit=unit, **TILED)
    slide = TiffSlideReader.open(tmp_path / "a.tif")
    slide.close()
    if expected is None:
        assert slide.info.scale is None
    else:
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(expected)


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", resolution=(40000, 41000), resolutionunit="centimeter")
    with pytest.raises(SlideError, match=r"a\.tif: has pixels that are not square \(0.25 x 0.2439"):
        TiffSlideReader.open(tmp_path / "a.tif")


@pytest.mark.parametrize(("mpp", "expected"), [(0.2527, Scale(0.2527)), (None, None), (0.0, None), (350.0, None)])
def test_scale_of_an_svs(mpp: float | None, expected: Scale | None, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.svs", RGB, photometric="rgb", metadata=None, description=aperio_description(mpp), **TILED
    )
    slide = TiffSlideReader.open(tmp_path / "a.svs")
    slide.close()
    assert slide.info.scale == expected
    assert slide.info.vendor == "aperio"


def test_pyramid_in_sub_images(tmp_path: Path) -> None:
    """OME-TIFF and other writers keep the coarse levels in SubIFDs."""
    image = smooth_image(512, 640)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(image, photometric="rgb", subifds=2, tile=(128, 128), metadata={"axes": "YXS"})
        for down in (2, 4):
            file.write(image[::down, ::down].copy(), photometric="rgb", subfiletype=1, tile=(128, 128))
    slide = TiffSlideReader.open(tmp_path / "a.ome.tif")
    assert [(level.height, level.width, level.downsample) for level in slide.info.levels] == [
        (512, 640, 1.0),
        (256, 320, 2.0),
        (128, 160, 4.0),
    ]
    assert (slide.read(2, Box(10, 20, 70, 90)) == image[::4, ::4][10:80, 20:110]).all()
    slide.close()
