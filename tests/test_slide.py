"""A slide's identity, its scale, and the view at the model's scale."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclix.engine import registry
from nuclix.engine.contracts import Level
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide import view as slide
from nuclix.engine.slide.open import fingerprint, open_slide, slide_scale
from nuclix.engine.slide.view import SlideView, level_downsample, snapped
from nuclix.ext.resample import box_mean
from slides import ArrayReader, noise_image, padded, reduced, smooth_image, write_shared_background, write_slide

IMAGE = noise_image(211, 187)
RATIOS = [1.0, 2.0, 3.0, 4.0, 0.5, 1 / 3, 1.37, 0.813, 2.6, 1.1, 7.7, 0.3]


def view_of(ratio: float, image: np.ndarray = IMAGE, downs: tuple[int, ...] = (1,)) -> SlideView:
    return SlideView(ArrayReader([reduced(image, down) for down in downs]), Scale(0.25 * ratio), Scale(0.25))


def plain_view_of(ratio: float, image: np.ndarray) -> SlideView:
    reader = ArrayReader([image])
    reader.info = replace(reader.info, vendor="image")
    return SlideView(reader, Scale(0.25 * ratio), Scale(0.25))


class TestFingerprint:
    """Size, head, tail and chunks between."""

    def test_copies_share_it(self, tmp_path: Path) -> None:
        first, second = tmp_path / "a.svs", tmp_path / "elsewhere.tif"
        write_slide(first, smooth_image(300, 300))
        shutil.copy(first, second)
        os.utime(second, (1, 1))
        assert fingerprint(first) == fingerprint(second)
        assert len(fingerprint(first)) == 64

    @pytest.mark.parametrize("size", [1, 100, 65536, 65537, 200_000, 3_000_000])
    def test_every_place_it_looks_at_matters(self, size: int, tmp_path: Path) -> None:
        path = tmp_path / "a"
        content = bytearray(np.random.default_rng(size).bytes(size))
        path.write_bytes(content)
        before = fingerprint(path)
        for place in {0, size - 1}:
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            assert fingerprint(path) != before
        path.write_bytes(content + b"\0")
        assert fingerprint(path) != before

    def test_small_files_count_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        content = bytearray(np.random.default_rng(0).bytes(1_000_000))  # less than it reads
        path.write_bytes(content)
        before = fingerprint(path)
        for place in range(0, len(content), 50_021):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            assert fingerprint(path) != before

    def test_it_is_the_same_for_ever(self, tmp_path: Path) -> None:
        """Identifiers of nuclei grow from it: another value would rename every nucleus ever written."""
        path = tmp_path / "a"
        path.write_bytes(bytes(range(256)) * 10_000)
        assert fingerprint(path) == "cfb704717bd88d225546da9d84c58cefa2e42680a69e083c290a035e45f2b440"


class TestScale:
    """What the file says, unless the user says otherwise."""

    def test_the_users_word_counts(self) -> None:
        info = ArrayReader([IMAGE], scale=0.5).info
        assert slide_scale(info) == Scale(0.5)
        assert slide_scale(info, 0.25) == Scale(0.25)

    def test_nobody_says(self) -> None:
        with pytest.raises(SlideError, match=r"array: states no scale; give it with --mpp"):
            slide_scale(ArrayReader([IMAGE], scale=None).info)

    @pytest.mark.parametrize("um", [0.0, -1.0, 0.04, 21.0, 250.0, float("nan"), float("inf")])
    def test_no_microscope_has_that(self, um: float) -> None:
        with pytest.raises(SlideError, match=r"the given scale is .*outside 0\.05 to 20 um/px"):
            slide_scale(ArrayReader([IMAGE]).info, um)

    @pytest.mark.parametrize(
        ("ratio", "expected"),
        [
            (1.0, 1), (1.04, 1), (0.96, 1), (1.06, 1.06), (0.94, 0.94), (2.09, 2), (1.89, 1.89), (0.501, 0.5),
            (0.345, 1 / 3), (0.36, 0.36), (1.5, 1.5), (2.85, 3), (2.84, 2.84), (12.6, 13), (0.813, 0.813),
        ],
    )  # fmt: skip
    def test_snapping(self, ratio: float, expected: float) -> None:
        assert snapped(ratio) == expected

    @given(st.floats(0.01, 100))
    def test_snapping_moves_no_further_than_it_says(self, ratio: float) -> None:
        assert abs(ratio / snapped(ratio) - 1) <= slide.SNAP
        assert snapped(snapped(ratio)) == snapped(ratio)

    def test_the_view_says_its_true_scale(self) -> None:
        view = SlideView(ArrayReader([IMAGE]), Scale(0.25), Scale(0.2456))
        assert view.downsample == 1
        assert view.scale == Scale(0.2456)


class TestView:
    """Reading at the model's scale."""

    @pytest.mark.parametrize("ratio", RATIOS)
    @given(data=st.data())
    def test_how_boxes_are_cut_makes_no_difference(self, ratio: float, data: st.DataObject) -> None:
        view = view_of(ratio)
        frame = view.box.expand(7)
        whole = view.read(frame)
        row, col = data.draw(st.integers(-7, view.height + 6)), data.draw(st.integers(-7, view.width + 6))
        height = data.draw(st.integers(0, view.height + 7 - row))
        width = data.draw(st.integers(0, view.width + 7 - col))
        box = Box(row, col, height, width)
        assert (view.read(box) == whole[box.slices(frame)]).all()

    @pytest.mark.parametrize("ratio", RATIOS)
    def test_pieces_make_no_difference(self, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = view_of(ratio).read(view_of(ratio).box)
        monkeypatch.setattr(slide, "PIECE_PX", 37)
        view = view_of(ratio)
        assert (view.read(view.box) == whole).all()

    def test_one_to_one_is_a_plain_read(self) -> None:
        view = view_of(1.03)
        box = Box(-3, 4, 50, 60)
        assert (view.read(box) == padded(IMAGE, box)).all()
        assert view.reader.reads == [(0, box)]  # type: ignore[attr-defined]

    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_whole_factors_are_box_means(self, factor: int) -> None:
        view = view_of(factor)
        assert (view.height, view.width) == (-(-211 // factor), -(-187 // factor))
        source = padded(IMAGE, Box(0, 0, view.height * factor, view.width * factor))
        assert (view.read(view.box) == box_mean(source, factor)).all()

    @pytest.mark.parametrize("ratio", [0.5, 1 / 3, 0.25, 0.2])
    def test_whole_up_sampling_has_whole_sizes(self, ratio: float) -> None:
        view = view_of(ratio)
        times = round(1 / ratio)
        assert (view.height, view.width) == (211 * times, 187 * times)

    def test_up_sampling_lies_right(self) -> None:
        """Twice as fine: the mean of each 2 x 2 pixels is close to the pixel, and nothing is shifted."""
        image = smooth_image(211, 187)
        view = view_of(0.5, image)
        means = box_mean(view.read(view.box), 2)
        assert np.abs(means[1:-1, 1:-1].astype(int) - image[1:-1, 1:-1]).max() <= 2

    @pytest.mark.parametrize("ratio", [1.37, 2.6, 0.813])
    def test_odd_ratios_lie_right(self, ratio: float) -> None:
        rows = np.linspace(0, 250, 211)[:, None, None]
        image = np.broadcast_to(rows, (211, 187, 3)).astype(np.uint8)
        view = view_of(ratio, image)
        shown = view.read(view.box)[1:-1, 5, 0].astype(float)
        centre = (np.arange(1, view.height - 1) + 0.5) * ratio - 0.5
        assert np.abs(shown - centre * 250 / 210).max() < 1.5

    @pytest.mark.parametrize(
        ("ratio", "level", "factor"),
        [
            (0.5, 0, 0.5),
            (1, 0, 1),
            (2, 0, 2),
            (3.9, 1, 1),
            (4, 1, 1),
            (5.6, 1, 1.4),
            (8, 1, 2),
            (16, 2, 1),
            (66, 2, 66 / 16),
        ],
    )
    def test_the_level_at_or_below_is_read(self, ratio: float, level: int, factor: float) -> None:
        view = view_of(ratio, noise_image(1001, 999), (1, 4, 16))
        assert view.level == level
        assert view.factor == pytest.approx(factor, rel=0.05)
        view.read(Box(0, 0, 5, 5))
        assert {read for read, _ in view.reader.reads} == {level}  # type: ignore[attr-defined]

    def test_levels_rounded_off_stand_on_the_grid(self) -> None:
        assert level_downsample(Level(2967, 2220, 1), Level(741, 555, (2967 / 741 + 4) / 2)) == 4
        assert level_downsample(Level(2967, 2220, 1), Level(742, 555, (2967 / 742 + 4) / 2)) == 4
        assert level_downsample(Level(3000, 3000, 1), Level(800, 800, 3.75)) == 3.75

    def test_an_empty_box(self) -> None:
        for ratio in RATIOS:
            assert view_of(ratio).read(Box(3, 3, 0, 5)).shape == (0, 5, 3)
            assert view_of(ratio).read(Box(3, 3, 5, 0)).shape == (5, 0, 3)

    def test_a_slide_coarser_than_the_model(self) -> None:
        view = SlideView(ArrayReader([IMAGE]), Scale(0.25), Scale(0.499))
        assert (view.downsample, view.factor, view.level) == (0.5, 0.5, 0)
        assert view.scale == Scale(0.2495)


class TestOpening:
    """Which reader is taken."""

    def test_rank_decides(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Eager(ArrayReader):
            priority: ClassVar[int] = 5

            @classmethod
            def recognises(cls, path: Path) -> bool:
                return True

            @classmethod
            def open(cls, path: Path) -> Eager:
                return cls([IMAGE])

        class Shy(Eager):
            priority: ClassVar[int] = -5

        kinds = {"shy": Shy, "eager": Eager, "none": ArrayReader}
        monkeypatch.setattr(registry, "names", lambda group: tuple(kinds))
        monkeypatch.setattr(registry, "load", lambda group, name: kinds[name])
        monkeypatch.setattr(registry, "load_all", lambda group: kinds)
        path = tmp_path / "a"
        path.write_bytes(b"x")
        assert type(open_slide(path)) is Eager
        kinds.pop("eager")
        assert type(open_slide(path)) is Shy
        kinds.pop("shy")
        with pytest.raises(SlideError, match=r"recognises \(readers: none\)"):
            open_slide(path)

    def test_built_ins_are_entry_points(self) -> None:
        assert {"tiffslide", "image"} <= set(registry.names(registry.READERS))
        assert EntryPoint("tiffslide", "nuclix.plugins.readers.tiffslide:TiffSlideReader", registry.READERS).load()


class TestPatches:
    """What the network sees beyond the edge."""

    @given(st.integers(-60, 200), st.integers(-60, 200), st.integers(1, 90), st.integers(1, 90))
    def test_a_plain_image_is_mirrored(self, row: int, col: int, height: int, width: int) -> None:
        image = noise_image(40, 50)
        slide_like, plain = (SlideView(ArrayReader([image]), Scale(0.25), Scale(0.25)) for _ in range(2))
        plain.reader.info = replace(plain.info, vendor="image")
        box = Box(row, col, height, width)
        assert np.array_equal(slide_like.read_patch(box), slide_like.read(box))
        inside = box.intersect(plain.box)
        found = plain.read_patch(box)
        assert found.shape == (height, width, 3)
        if not inside.area:
            assert np.array_equal(found, plain.read(box))
            return
        assert np.array_equal(found[inside.slices(box)], image[inside.slices()])
        if inside.row > row:
            assert np.array_equal(found[inside.row - row - 1], found[inside.row - row])
        if inside.col > col:
            assert np.array_equal(found[:, inside.col - col - 1], found[:, inside.col - col])
        if inside.row_end < box.row_end:
            assert np.array_equal(found[inside.row_end - row], found[inside.row_end - row - 1])

    @pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 1.6, 2.0, 2.7])
    @pytest.mark.parametrize("shade", [0, 130])
    def test_no_white_bleeds_into_a_plain_image(self, ratio: float, shade: int) -> None:
        """Resampling mixes the pixels at the border with their mirror image."""
        plain = plain_view_of(ratio, np.full((41, 50, 3), shade, np.uint8))
        assert (plain.read(plain.box) == shade).all()
        assert (plain.read_patch(plain.box.expand(130)) == shade).all()
        assert (plain.read(Box(-5, 0, 5, 9)) == 255).all()

    @pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 1.6, 2.0, 2.7])
    @given(data=st.data())
    def test_a_patch_of_a_plain_image_is_a_piece_of_its_mirror_images(self, ratio: float, data: st.DataObject) -> None:
        plain = plain_view_of(ratio, noise_image(41, 50))
        frame = plain.box.expand(60)
        whole = plain.read(plain.box)
        tiled = np.pad(whole, ((60, 60), (60, 60), (0, 0)), mode="symmetric")
        row, col = data.draw(st.integers(-60, plain.height - 1)), data.draw(st.integers(-60, plain.width - 1))
        height = data.draw(st.integers(max(1, 1 - row), plain.height + 60 - row))
        width = data.draw(st.integers(max(1, 1 - col), plain.width + 60 - col))
        box = Box(row, col, height, width)
        assert (plain.read_patch(box) == tiled[box.slices(frame)]).all()


class TestUniformRegions:
    """Background that shares its tiles is not read."""

    @pytest.mark.parametrize("ratio", [2.0, 2.7, 0.6])
    def test_it_is_filled_with_the_pixels_that_reading_gives(
        self, ratio: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Knowing(ArrayReader):
            def uniform(self, level: int, box: Box) -> tuple[int, int, int] | None:
                part = self._levels[level][box.slices()]
                known = box.intersect(Box(0, 0, *self._levels[level].shape[:2])) == box
                return tuple(part[0, 0].tolist()) if known and (part == part[0, 0]).all() else None

        image = np.full((700, 900, 3), (240, 241, 239), np.uint8)
        image[200:300, 150:400] = noise_image(100, 250)
        monkeypatch.setattr(slide, "PIECE_PX", 128)
        readers = Knowing([image]), ArrayReader([image])
        views = [SlideView(reader, Scale(0.25 * ratio), Scale(0.25)) for reader in readers]
        assert (views[0].read(views[0].box) == views[1].read(views[1].box)).all()
        assert len(readers[0].reads) < len(readers[1].reads)

    def test_a_large_slide_of_shared_background_is_opened_and_surveyed(self, tmp_path: Path) -> None:
        """300,000 px of one tile: reading each of 1.4 million tiles took minutes."""
        path = write_shared_background(tmp_path / "a.tif", 300_032, noise_image(256, 256))
        reader = open_slide(path)
        decoded = []
        monkeyed = reader._decoded  # type: ignore[attr-defined]
        reader._decoded = lambda *key: (decoded.append(key), monkeyed(*key))[1]  # type: ignore[attr-defined]
        view = SlideView(reader, Scale(8.0), Scale(0.25))
        low = view.read(view.box)
        assert (low == 255).all(axis=2).sum() == low[..., 0].size - 64
        assert len(decoded) < 200
        reader.close()
