"""What every slide reader must do; run `CHECKS` on your own, each with the reader's class and a file that it reads.

>>> import pytest
>>> @pytest.mark.parametrize("check", CHECKS)
... def test_my_reader(check):
...     check(MyReader, Path("a slide of at least 64 x 64 pixels"))
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box

Check = Callable[[type[SlideReader], Path], None]
WINDOW = 700  # larger than the usual tiles


@contextmanager
def opened(reader: type[SlideReader], path: Path) -> Iterator[SlideReader]:
    """Open a slide for a `with` block."""
    slide = reader.open(path)
    try:
        yield slide
    finally:
        slide.close()


def level_box(slide: SlideReader, level: int) -> Box:
    """Return the box of a whole level."""
    return Box(0, 0, slide.info.levels[level].height, slide.info.levels[level].width)


def corners(slide: SlideReader, level: int) -> list[Box]:
    """Windows in the level's first and last corner."""
    whole = level_box(slide, level)
    size = min(WINDOW, whole.height), min(WINDOW, whole.width)
    return [Box(0, 0, *size), Box(whole.height - size[0], whole.width - size[1], *size)]


def random_boxes(within: Box, count: int, seed: int) -> list[Box]:
    """Boxes in and across the border of `within`, some a pixel thin."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        rows = np.sort(rng.integers(within.row - 9, within.row_end + 10, 2))
        cols = np.sort(rng.integers(within.col - 9, within.col_end + 10, 2))
        boxes.append(Box.between(int(rows[0]), int(cols[0]), int(rows[1]) + 1, int(cols[1]) + 1))
    return boxes


def check_protocol(reader: type[SlideReader], path: Path) -> None:
    """Check the class attributes and what `info` states."""
    assert isinstance(reader.priority, int)
    with opened(reader, path) as slide:
        missing = [
            name for name in ("priority", "recognises", "open", "info", "read", "close") if not hasattr(slide, name)
        ]
        assert not missing, f"a reader also has: {', '.join(missing)}"
        assert slide.info.path == path
        assert slide.info.vendor == slide.info.vendor.lower() != ""


def check_levels(reader: type[SlideReader], path: Path) -> None:
    """Levels go from fine to coarse; a level's size is level 0's by its downsample, to within rounding."""
    with opened(reader, path) as slide:
        levels, bounds = slide.info.levels, slide.info.bounds
        assert levels[0].downsample == 1
        assert all(fine.downsample < coarse.downsample for fine, coarse in pairwise(levels))
        for level in levels:
            assert min(level.height, level.width) >= 1
            for full, part in ((levels[0].height, level.height), (levels[0].width, level.width)):
                assert (part - 1) * level.downsample * 0.98 <= full <= (part + 1) * level.downsample * 1.02
        if bounds is not None:
            assert bounds.area > 0
            assert bounds.intersect(level_box(slide, 0)) == bounds


def check_recognition(reader: type[SlideReader], path: Path) -> None:
    """Content decides, not the name; unrecognised and empty files are nobody's, and nothing is raised for them."""
    assert reader.recognises(path)
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "slide"
        bare.write_bytes(path.read_bytes())
        assert reader.recognises(bare)
        for content in (b"", b"\0", b"II", b"only text\n" * 100, bytes(5000)):
            unrecognised = Path(folder) / f"unrecognised{path.suffix}"
            unrecognised.write_bytes(content)
            assert not reader.recognises(unrecognised)


def check_arrays(reader: type[SlideReader], path: Path) -> None:
    """Check that a box is a fresh (height, width, 3) uint8 array, which the caller may change."""
    with opened(reader, path) as slide:
        for level in range(len(slide.info.levels)):
            for box in (Box(0, 0, 1, 1), Box(3, 5, 40, 17), Box(7, 7, 0, 9), Box(7, 7, 9, 0)):
                image = slide.read(level, box)
                assert image.shape == (*box.shape, 3)
                assert image.dtype == np.uint8
                before = image.copy()
                image[:] = 77
                assert (slide.read(level, box) == before).all()


def check_outside_is_white(reader: type[SlideReader], path: Path) -> None:
    """Check that pixels outside the level are white."""
    with opened(reader, path) as slide:
        for level in range(len(slide.info.levels)):
            whole = level_box(slide, level)
            for box in (
                Box(-50, 0, 50, 60),
                Box(0, -50, 60, 50),
                Box(whole.row_end, 0, 50, 60),
                Box(0, whole.col_end, 60, 50),
                Box(-(10**6), 10**6, 20, 30),
            ):
                assert (slide.read(level, box) == 255).all()


def check_boxes_agree(reader: type[SlideReader], path: Path) -> None:
    """Check that a box is a part of any larger box, over edges and across tiles."""
    with opened(reader, path) as slide:
        for level in range(len(slide.info.levels)):
            for window in corners(slide, level):
                frame = window.expand(10)
                whole = slide.read(level, frame)
                for box in random_boxes(window, 12, seed=level):
                    assert (slide.read(level, box) == whole[box.slices(frame)]).all()


def check_levels_show_one_picture(reader: type[SlideReader], path: Path) -> None:
    """Check that a coarse level's pixels are about the means of level 0's: no shift, no swapped axes or colours."""
    with opened(reader, path) as slide:
        for level in range(1, len(slide.info.levels)):
            down = slide.info.levels[level].downsample
            whole = level_box(slide, level)
            size = max(1, int(WINDOW / down))
            box = Box(whole.height // 3, whole.width // 3, size, size).intersect(whole)
            coarse = slide.read(level, box).astype(float)
            fine = slide.read(0, Box(*(round(place * down) for place in (box.row, box.col, box.height, box.width))))
            means = np.empty_like(coarse)
            for row in range(box.height):
                for col in range(box.width):
                    top, left = round(row * down), round(col * down)
                    means[row, col] = fine[top : top + round(down), left : left + round(down)].mean(axis=(0, 1))
            assert np.abs(means - coarse).mean() < 12


def check_threads(reader: type[SlideReader], path: Path) -> None:
    """Eight threads at once read what one reads."""
    with opened(reader, path) as slide, opened(reader, path) as alone, ThreadPoolExecutor(8) as pool:
        tasks = [
            (level, box)
            for level in range(len(slide.info.levels))
            for window in corners(slide, level)
            for box in random_boxes(window, 12, seed=level)
        ]
        order = np.random.default_rng(0).permutation(len(tasks))
        expected = [alone.read(*tasks[index]) for index in order]
        for image, other in zip(pool.map(lambda index: slide.read(*tasks[index]), order), expected, strict=True):
            assert (image == other).all()


def check_close(reader: type[SlideReader], path: Path) -> None:
    """Check that a closed slide keeps no file open, may be closed again, and is not read."""
    before = open_files()
    slide = reader.open(path)
    slide.read(0, Box(0, 0, 20, 20))
    slide.close()
    slide.close()
    assert open_files() == before
    with pytest.raises((SlideError, ValueError)):
        slide.read(0, Box(0, 0, 20, 20))


def check_no_such_level(reader: type[SlideReader], path: Path) -> None:
    """Check that a level that does not exist is an error."""
    with opened(reader, path) as slide:
        for level in (-1, len(slide.info.levels)):
            with pytest.raises((SlideError, ValueError)):
                slide.read(level, Box(0, 0, 5, 5))


def check_cut_short(reader: type[SlideReader], path: Path) -> None:
    """Half a file is an error that names it, on opening or on reading; never a white picture."""
    content = path.read_bytes()
    before = open_files()
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / f"half{path.suffix}"
        half.write_bytes(content[: len(content) // 2])
        with pytest.raises(SlideError, match=half.name) as caught, opened(reader, half) as slide:
            slide.read(0, level_box(slide, 0))
        assert "\n" not in str(caught.value)
    del caught
    assert open_files() == before


def open_files() -> list[str]:
    """Return what this process has open, where the system says it."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return []
    links = []
    for entry in folder.iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:  # the listing's own descriptor, gone again
            continue
    return sorted(link for link in links if link.startswith(os.sep) and not link.startswith(("/proc", "/dev")))


CHECKS: tuple[Check, ...] = (
    check_protocol,
    check_levels,
    check_recognition,
    check_arrays,
    check_outside_is_white,
    check_boxes_agree,
    check_levels_show_one_picture,
    check_threads,
    check_close,
    check_no_such_level,
    check_cut_short,
)


def check_against_openslide(reader: type[SlideReader], path: Path, tolerance: int = 2) -> None:
    """Scale and pixels of every level are OpenSlide's, to within the JPEG decoders' rounding.

    OpenSlide may know of more levels: it makes some of an NDPI's up.
    """
    import openslide

    with opened(reader, path) as slide, openslide.OpenSlide(path) as other:
        sizes = [(level.width, level.height) for level in slide.info.levels]
        assert sizes[0] == other.dimensions
        mpp = other.properties.get(openslide.PROPERTY_NAME_MPP_X)
        if mpp is not None and slide.info.scale is not None:
            assert slide.info.scale.mpp == pytest.approx(float(mpp))
        for level, size in enumerate(sizes):
            # OpenSlide places boxes in level-0 pixels: on coarse levels only the first corner is surely on the grid
            for box in corners(slide, level)[: 1 if level else None]:
                theirs = other.level_dimensions.index(size)
                rgba = np.asarray(other.read_region((box.col, box.row), theirs, (box.width, box.height)))
                shown = rgba[..., 3] == 255
                difference = slide.read(level, box).astype(int) - rgba[..., :3]
                assert shown.any()
                assert np.abs(difference[shown]).max() <= tolerance
