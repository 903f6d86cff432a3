"""Focus, stain, ink and dust of slides; stain normalisation; ICC profiles."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from scipy import ndimage

from end_to_end import blobs
from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import DataError, SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.array import ArrayReader
from nuclix.engine.slide.colour import ColourManagedReader, managed, profile_warnings, reader_name
from nuclix.engine.slide.normalise import REFERENCE, stain_normaliser, stain_profile
from nuclix.engine.slide.quality import SlideQuality, quality_warnings, slide_quality, tile_sharpness
from nuclix.engine.slide.samples import TissueSamples, tissue_samples
from nuclix.engine.slide.stains import angle_between
from nuclix.engine.slide.tissue import Overview, TissueMask
from nuclix.engine.slide.tissue_file import read_tissue_mask
from nuclix.engine.slide.view import SlideView
from slides import ArrayReader as LevelReader
from test_regions import feature, write
from test_stain_vectors import HE_VECTORS, mixed


def stained_tile(seed: int = 0, blur: float = 0.0) -> NDArray[np.uint8]:
    dark = (blobs(seed, 256, 256)[..., :1] < 200) * np.array([120, 150, 90])
    image = (235 - dark + np.random.default_rng(seed).normal(0, 6, (256, 256, 1))).astype(np.float32)
    if blur:
        image = ndimage.gaussian_filter(image, (blur, blur, 0))
    return np.rint(image).astype(np.uint8)


def quality_of(*tiles: NDArray[np.uint8]) -> SlideQuality:
    return slide_quality(TissueSamples(tiles, 0.5), None, None)


def test_blurred_tiles_are_out_of_focus_and_flat_ones_do_not_count() -> None:
    sharp, blurred = [stained_tile(seed) for seed in range(6)], [stained_tile(seed, 3.0) for seed in range(4)]
    flat = np.full((256, 256, 3), 240, np.uint8)
    assert tile_sharpness(flat) is None
    assert quality_of(*sharp, flat).out_of_focus == 0.0
    found = quality_of(*sharp, *blurred, flat)
    assert found.out_of_focus == pytest.approx(0.4)
    assert quality_warnings(found)[0].startswith("out of focus in 40% of the tissue")
    assert quality_of(*sharp[:2]).out_of_focus is None


def test_sharpness_of_noise_is_that_of_the_laplacian() -> None:
    noise = np.repeat(np.random.default_rng(0).integers(0, 256, (400, 400, 1), np.uint8), 3, axis=2)
    assert tile_sharpness(noise) == pytest.approx(20, rel=0.03)


def test_stains_far_from_the_reference_are_warned_of() -> None:
    near = slide_quality(TissueSamples((mixed(REFERENCE.vectors).reshape(100, -1, 3),), 0.5), None, None)
    assert near.stain_angles is not None and max(near.stain_angles) < 5
    assert quality_warnings(near) == []
    dab = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])
    brown = slide_quality(TissueSamples((mixed(dab).reshape(100, -1, 3),), 0.5), None, None)
    assert "not H&E" in quality_warnings(brown)[0]


def overview_with(place: tuple[slice, slice], colour: tuple[int, int, int]) -> Overview:
    pixels = np.full((400, 500, 3), 244, np.uint8)
    pixels[100:300, 100:300] = (190, 120, 180)
    pixels[place] = colour
    return Overview(pixels, 32.0, Scale(8.0))


@pytest.mark.parametrize(
    ("place", "colour", "name"),
    [
        (np.s_[120:160, 120:200], (20, 140, 60), "pen_mm2"),
        (np.s_[120:160, 120:200], (30, 60, 190), "pen_mm2"),
        (np.s_[120:160, 120:200], (215, 30, 40), "pen_mm2"),
        (np.s_[120:160, 120:200], (40, 40, 45), "pen_mm2"),
        (np.s_[350:362, 20:34], (120, 120, 118), "dust_mm2"),
        (np.s_[0:400, 450:452], (140, 142, 141), "coverslip_mm2"),
        (np.s_[0:400, 480:500], (0, 0, 0), "border_mm2"),
    ],
)
def test_ink_dust_and_borders_are_told_apart(
    place: tuple[slice, slice], colour: tuple[int, int, int], name: str
) -> None:
    overview = overview_with(place, colour)
    mask = np.zeros((400, 500), bool)
    mask[100:300, 100:300] = True
    found = slide_quality(TissueSamples((), 0.5), overview, TissueMask(mask, 1.0, 1.0))
    areas = {key: getattr(found, key) for key in ("pen_mm2", "dust_mm2", "coverslip_mm2", "border_mm2")}
    expected = (overview.pixels[place][..., 0].size * 64) / 1e6
    assert areas == {key: pytest.approx(expected if key == name else 0.0) for key in areas}
    assert (found.pen_share > 0.01) == (name == "pen_mm2") == any("pen" in line for line in quality_warnings(found))


def test_tissue_of_all_h_and_e_shades_is_no_ink() -> None:
    pixels = mixed(HE_VECTORS, count=40_000).reshape(200, 200, 3)
    found = slide_quality(TissueSamples((), 0.5), Overview(pixels, 32.0, Scale(8.0)), None)
    assert (found.pen_mm2, found.coverslip_mm2) == (0.0, 0.0)


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_normalised_pixels_have_the_reference_stain(method: str) -> None:
    other = np.array([[0.75, 0.60, 0.28], [0.15, 0.90, 0.42]])
    pixels = mixed(other)
    before, after = stain_profile(pixels), stain_profile(stain_normaliser(method, stain_profile(pixels))(pixels))
    if method == "macenko":
        np.testing.assert_allclose(after.full, REFERENCE.full, rtol=0.2)
        assert all(angle_between(*pair) < 5 for pair in zip(after.vectors, REFERENCE.vectors, strict=True))
        assert angle_between(before.vectors[0], REFERENCE.vectors[0]) > 8
    else:
        assert np.abs(after.lab.mean - REFERENCE.lab.mean).max() < 0.05


def test_normalising_to_its_own_stain_changes_little() -> None:
    pixels = mixed(HE_VECTORS)
    own = stain_profile(pixels)
    for method in ("reinhard", "macenko"):
        change = stain_normaliser(method, own, own)(pixels).astype(int) - pixels
        assert np.abs(change[pixels.min(axis=1) > 40]).max() <= 8  # densities of dark pixels are coarse
    with pytest.raises(ValueError, match="no method"):
        stain_normaliser("vahadane", own)
    with pytest.raises(DataError):
        stain_profile(np.full((5000, 3), 250, np.uint8))


def test_samples_lie_in_the_tissue_and_are_the_same_each_time() -> None:
    image = np.full((2048, 4096, 3), 250, np.uint8)
    image[:, 1024:2048] = (180, 100, 170)
    reader = ArrayReader(image, 0.5)
    view = SlideView(reader, Scale(0.25), Scale(0.5))
    mask = np.zeros((128, 256), bool)
    mask[:, 64:128] = True
    samples = tissue_samples(reader, view, TissueMask(mask, 32.0, 1.0))
    assert len(samples.tiles) == 32
    assert all((tile == (180, 100, 170)).all() for tile in samples.tiles)
    assert len(tissue_samples(reader, view, None).tiles) == 100
    assert tissue_samples(reader, view, TissueMask(np.zeros_like(mask), 32.0, 0.0)).tiles == ()


def with_profile(profile: bytes | None) -> SlideReader:
    reader = LevelReader([np.full((64, 64, 3), (200, 100, 50), np.uint8)])
    reader.info = replace(reader.info, icc_profile=profile)
    return reader


def test_colours_are_converted_to_srgb_by_the_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = managed(with_profile(srgb))
    assert reader_name(same) == "ArrayReader"
    assert np.abs(same.read(0, Box(0, 0, 8, 8)).astype(int) - (200, 100, 50)).max() <= 1
    assert isinstance(same, ColourManagedReader) and profile_warnings(same, asked=True) == ()
    plain = managed(with_profile(None))
    assert "no ICC profile" in profile_warnings(plain, asked=True)[0]
    assert same.read(0, Box(0, 0, 0, 4)).shape == (0, 4, 3)
    assert (same.read(0, Box(60, 60, 10, 10))[5:, 5:] == 255).all()
    with pytest.raises(SlideError, match=r"ICC profile can't be used.*without --icc"):
        managed(with_profile(b"no profile"))
    lab = io.BytesIO(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()).getvalue()
    with pytest.raises(SlideError, match="ICC profile can't be used"):
        managed(with_profile(lab))


def placed(path: Path) -> TissueMask:
    image = np.full((1024, 2048, 3), 250, np.uint8)
    reader = ArrayReader(image, 0.5)
    return read_tissue_mask(path, reader, SlideView(reader, Scale(0.25), Scale(0.5)))


@pytest.mark.parametrize("size", [(2048, 1024), (64, 32), (20, 10), (333, 167)])
def test_a_tissue_mask_of_any_size_covers_the_slide(size: tuple[int, int], tmp_path: Path) -> None:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[:, : size[0] // 2] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    found = placed(tmp_path / "a.png")
    assert found.mask.shape == (64, 128)
    assert found.area_mm2 == pytest.approx(0.5 * 1024 * 2048 * 0.25 / 1e6, rel=0.02)
    assert found.within(Box(0, 0, 100, 100), 0) and not found.within(Box(0, 2200, 100, 100), 0)


def test_a_tissue_mask_may_be_annotations_or_colours(tmp_path: Path) -> None:
    write(tmp_path / "a.geojson", feature("t", "", [[0, 0], [1024, 0], [1024, 1024], [0, 1024]]))
    assert placed(tmp_path / "a.geojson").area_mm2 == pytest.approx(0.262, rel=0.03)
    colours = np.zeros((32, 64, 4), np.uint8)
    colours[:, :32] = (0, 200, 0, 255)
    colours[:, 32:] = (200, 0, 0, 0)
    Image.fromarray(colours).save(tmp_path / "b.png")
    assert placed(tmp_path / "b.png").area_mm2 == pytest.approx(0.262, rel=0.03)


def test_a_tissue_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the tissue mask has 50 x 50 px, which are not the proportions"):
        placed(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png: the tissue mask can't be read"):
        placed(tmp_path / "b.png")
