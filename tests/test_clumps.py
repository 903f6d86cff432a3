"""Blocks in any size and order give the clumps and the objects of the whole map."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Box
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.segmentation.clump_batch import pack
from nuclix.engine.segmentation.clumps import Clump, Stitcher
from nuclix.engine.segmentation.context import ContextWindow
from nuclix.engine.segmentation.large_clumps import ClumpLimits, LargeClump
from nuclix.engine.segmentation.objects import Objects

EIGHT = np.ones((3, 3), int)


def open_pixels(stitcher: Stitcher) -> int:
    """Return the number of pixels of maps that wait."""
    frames = {id(crop.frame): crop.frame.box.area for crops in stitcher._pieces.values() for crop in crops}
    return sum(frames.values())


def masks(side: int = 24) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, side), st.integers(1, side))
    return shapes.flatmap(lambda shape: arrays(bool, shape, elements=st.booleans()))


def cuts(extent: int, pick: random.Random) -> tuple[int, ...]:
    inner = pick.sample(range(1, extent), pick.randint(0, min(6, extent - 1))) if extent > 1 else []
    return (0, *sorted(inner), extent)


def windows(maps: np.ndarray, box: Box, context: int) -> np.ndarray:
    padded = np.pad(maps, ((0, 0), (context, context), (context, context)))
    return padded[:, box.row : box.row_end + 2 * context, box.col : box.col_end + 2 * context]


def stitched(mask: np.ndarray, edges: tuple, context: int, pick: random.Random) -> list[Clump]:
    """Feed every block in random order; return what comes out."""
    maps = np.arange(2 * mask.size, dtype=np.float32).reshape(2, *mask.shape)
    stitcher = Stitcher(*edges, context)
    indices = [(i, j) for i in range(len(edges[0]) - 1) for j in range(len(edges[1]) - 1)]
    pick.shuffle(indices)
    out = []
    for i, j in indices:
        box = stitcher.block_box(i, j)
        part = mask[box.slices()]
        if part.any():
            out += stitcher.add(i, j, windows(maps, box, context), part)
        else:
            out += stitcher.add_empty(i, j)
    assert open_pixels(stitcher) == 0
    return out


def pixels_of(clumps: list[Clump]) -> set[frozenset]:
    """The clumps as sets of pixels; a block's own clumps come as one entry and are told apart here."""
    found = set()
    for clump in clumps:
        labels, count = label(clump.mask, EIGHT)
        for number in range(1, count + 1):
            rows, cols = np.nonzero(labels == number)
            found.add(frozenset(zip((rows + clump.box.row).tolist(), (cols + clump.box.col).tolist(), strict=True)))
    return found


@given(mask=masks(), seed=st.integers(0, 2**32), context=st.integers(0, 3))
def test_any_blocks_in_any_order_give_the_clumps_of_the_whole_mask(mask: np.ndarray, seed: int, context: int) -> None:
    pick = random.Random(seed)
    edges = (cuts(mask.shape[0], pick), cuts(mask.shape[1], pick))
    clumps = stitched(mask, edges, context, pick)
    whole = pixels_of([Clump(Box(0, 0, *mask.shape), mask, np.zeros((1, *mask.shape), np.float32))])
    assert pixels_of(clumps) == whole
    assert sum(int(clump.mask.sum()) for clump in clumps) == int(mask.sum())


@given(mask=masks(), seed=st.integers(0, 2**32), context=st.integers(0, 3))
def test_a_clump_brings_the_maps_around_it(mask: np.ndarray, seed: int, context: int) -> None:
    pick = random.Random(seed)
    edges = (cuts(mask.shape[0], pick), cuts(mask.shape[1], pick))
    maps = np.arange(2 * mask.size, dtype=np.float32).reshape(2, *mask.shape)
    for clump in stitched(mask, edges, context, pick):
        expected = windows(maps, clump.box, context)
        assert clump.maps.shape == expected.shape
        for row, col in np.argwhere(clump.mask):
            around = (slice(None), slice(row, row + 2 * context + 1), slice(col, col + 2 * context + 1))
            np.testing.assert_array_equal(clump.maps[around], expected[around])


@given(mask=masks(), seed=st.integers(0, 2**32), context=st.integers(0, 2))
def test_a_restored_stitcher_goes_on_as_if_nothing_had_happened(mask: np.ndarray, seed: int, context: int) -> None:
    pick = random.Random(seed)
    edges = (cuts(mask.shape[0], pick), cuts(mask.shape[1], pick))
    maps = np.arange(2 * mask.size, dtype=np.float32).reshape(2, *mask.shape)
    steady, resumed = Stitcher(*edges, context), Stitcher(*edges, context)
    for i in range(len(edges[0]) - 1):
        for j in range(len(edges[1]) - 1):
            box = steady.block_box(i, j)
            part = mask[box.slices()]
            given = (i, j, windows(maps, box, context), part)
            expected = steady.add(*given) if part.any() else steady.add_empty(i, j)
            found = resumed.add(*given) if part.any() else resumed.add_empty(i, j)
            assert [clump.box for clump in found] == [clump.box for clump in expected]
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(mine.mask, theirs.mask)
                np.testing.assert_array_equal(mine.maps, theirs.maps)
        state, resumed = resumed.snapshot(), Stitcher(*edges, context)
        resumed.restore(state)


def test_a_clump_larger_than_a_block_comes_whole() -> None:
    mask = np.zeros((40, 40), bool)
    mask[3:37, 3:37] = True
    edges = (tuple(range(0, 41, 5)), tuple(range(0, 41, 5)))
    clumps = stitched(mask, edges, 0, random.Random(1))
    assert len(clumps) == 1
    assert clumps[0].box == Box(3, 3, 34, 34)
    assert clumps[0].mask.all()


def test_clumps_that_touch_at_a_corner_of_four_blocks_are_one() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = mask[2, 2] = True
    assert len(pixels_of(stitched(mask, ((0, 2, 4), (0, 2, 4)), 0, random.Random(0)))) == 1


def test_a_clump_past_the_limit_is_handed_on_in_parts_and_counted() -> None:
    mask = np.ones((160, 160), bool)
    edges = (tuple(range(0, 161, 40)),) * 2
    stitcher = Stitcher(*edges, 0, ClumpLimits(pixels=2000, overlap=3, window=12))
    out = []
    most = 0
    for i in range(4):
        for j in range(4):
            out += stitcher.add(i, j, np.zeros((1, 40, 40), np.float32), mask[:40, :40])
            most = max(most, open_pixels(stitcher))
    assert stitcher.cuts > 0 and open_pixels(stitcher) == 0
    assert most <= 2000 + 40 * 40 + 2 * 160 * 2 * 3  # the limit, a block, strips along what has not come
    assert sum(int(own.sum()) for _, own, _ in windows_of(out)) == mask.size


def windows_of(clumps: list[Clump | LargeClump]) -> list[tuple[Box, np.ndarray, np.ndarray]]:
    """Box, owned pixels and all pixels of everything that would be split."""
    found = []
    for clump in clumps:
        if isinstance(clump, Clump):
            found.append((clump.box, clump.mask, clump.mask))
        else:
            found += [(window.box, window.own, window.mask) for window in clump.windows()]
    return found


@given(mask=masks(30), seed=st.integers(0, 2**32), context=st.integers(0, 2), pixels=st.integers(1, 80))
def test_every_pixel_is_owned_once_and_seen_with_its_clump_around_it(
    mask: np.ndarray, seed: int, context: int, pixels: int
) -> None:
    """Whatever the limits and the order of blocks: what a nucleus no larger than the overlap needs."""
    pick = random.Random(seed)
    edges = (cuts(mask.shape[0], pick), cuts(mask.shape[1], pick))
    limits = ClumpLimits(pixels, pick.choice([100, 1 << 20]), overlap=pick.randint(1, 6), window=pick.randint(3, 12))
    stitcher = Stitcher(*edges, context, limits)
    maps = 1 + np.arange(mask.size, dtype=np.float32).reshape(1, *mask.shape)
    indices = [(i, j) for i in range(len(edges[0]) - 1) for j in range(len(edges[1]) - 1)]
    in_rows = pick.random() < 0.5
    if not in_rows:
        pick.shuffle(indices)
    out: list[Clump | LargeClump] = []
    for i, j in indices:
        box = stitcher.block_box(i, j)
        part = mask[box.slices()]
        out += stitcher.add(i, j, windows(maps, box, context), part) if part.any() else stitcher.add_empty(i, j)
        if in_rows and j == len(edges[1]) - 2:
            state, stitcher = stitcher.snapshot(), Stitcher(*edges, context, limits)
            stitcher.restore(state)
    assert open_pixels(stitcher) == 0
    owned = np.zeros(mask.shape, int)
    whole = label(mask, EIGHT)[0]
    for box, own, seen in windows_of(out):
        owned[box.slices()] += own
        assert not (seen & ~mask[box.slices()]).any()
        for row, col in np.argwhere(own):
            around = Box(row + box.row, col + box.col, 1, 1).expand(limits.overlap)
            inside = around.intersect(Box(0, 0, *mask.shape))
            needed = whole[inside.slices()] == whole[row + box.row, col + box.col]
            visible = np.zeros(mask.shape, bool)
            visible[box.slices()] = seen
            assert (visible[inside.slices()] | ~needed).all()
    np.testing.assert_array_equal(owned, mask)
    for clump in out:
        for window in clump.windows() if isinstance(clump, LargeClump) else [clump]:
            expected = windows(maps, window.box, context)
            for row, col in np.argwhere(window.mask):
                near = (slice(None), slice(row, row + 2 * context + 1), slice(col, col + 2 * context + 1))
                np.testing.assert_array_equal(window.maps[near], expected[near])


def test_a_block_that_comes_twice_is_an_error() -> None:
    stitcher = Stitcher((0, 4), (0, 4), 0)
    stitcher.add_empty(0, 0)
    with pytest.raises(ValueError, match="twice"):
        stitcher.add_empty(0, 0)


def test_a_mask_of_the_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="mask"):
        Stitcher((0, 4), (0, 4), 0).add(0, 0, np.zeros((1, 4, 4), np.float32), np.ones((3, 4), bool))


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    block=st.integers(1, 60),
    context=st.integers(0, 4),
)
def test_blocks_partition_the_slide_and_units_are_made_of_whole_blocks(
    height: int, width: int, block: int, context: int
) -> None:
    grid = TileGrid(height, width, PatchShape(16, 4, 4), block)
    rows, cols = grid.block_edges(context)
    assert rows[0] == 0 and rows[-1] == height and list(rows) == sorted(set(rows))
    band = ContextWindow(grid, 1, context)
    seen = np.zeros((height, width), int)
    for row in range(grid.unit_rows):
        for col in range(grid.unit_cols):
            region = band.region(row, col)
            seen[region.slices()] += 1
            if region.area:
                assert {region.row, region.row_end} <= set(rows) and {region.col, region.col_end} <= set(cols)
    assert (seen == 1).all()
    assert max(np.diff(rows)) <= max(block, 8 * grid.patches_per_unit) + context
    covered = np.zeros((height, width), int)
    for row in range(grid.unit_rows):
        for col in range(grid.unit_cols):
            for core in grid.patches_of(row, col):
                covered[core.intersect(Box(0, 0, height, width)).slices()] += 1
    assert (covered == 1).all()


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    block=st.integers(1, 30),
    context=st.integers(0, 4),
    seed=st.integers(0, 2**32),
)
def test_windows_of_units_are_windows_of_the_whole_map(
    height: int, width: int, block: int, context: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = TileGrid(height, width, PatchShape(16, 4, 4), block)
    maps = rng.random((2, height, width), np.float32)
    background = rng.random((grid.unit_rows, grid.unit_cols)) < 0.3
    for (row, col), empty in np.ndenumerate(background):
        if empty:
            maps[(slice(None), *grid.unit_box(row, col).slices())] = 0
    band = ContextWindow(grid, 2, context)
    for (row, col), empty in np.ndenumerate(background):
        unit = None if empty else maps[(slice(None), *grid.unit_box(row, col).slices())]
        window = band.feed(row, col, unit)
        expected = windows(maps, band.region(row, col), context)
        if window is None:
            assert not expected.any()
        else:
            np.testing.assert_array_equal(window, expected)


def test_a_context_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="context"):
        ContextWindow(TileGrid(50, 50, PatchShape(16, 4, 4), 8), 1, 5)


@given(seed=st.integers(0, 2**32), context=st.integers(0, 2), count=st.integers(1, 8))
def test_packed_clumps_keep_their_pixels_maps_and_place(seed: int, context: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    clumps = []
    for number in range(count):
        box = Box(int(rng.integers(-50, 50)), 100 * number, int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        mask = rng.random(box.shape) < 0.7
        mask[0, 0] = True
        clumps.append(Clump(box, mask, rng.random((1, box.height + 2 * context, box.width + 2 * context), np.float32)))
    found = {}
    for canvas in pack(clumps, context):
        for box, start in zip(canvas.boxes, canvas.starts.tolist(), strict=True):
            mask = canvas.mask[: box.height, start : start + box.width]
            maps = canvas.maps[:, : box.height + 2 * context, start : start + box.width + 2 * context]
            found[box] = (mask, maps)
            firsts = np.array([[0, start], [box.height - 1, start + box.width - 1]])
            moved = canvas.placed(_points(firsts))
            np.testing.assert_array_equal(moved.first, firsts - [0, start] + [box.row, box.col])
            np.testing.assert_array_equal(moved.corners, moved.first)
    assert set(found) == {clump.box for clump in clumps}
    for clump in clumps:
        np.testing.assert_array_equal(found[clump.box][0], clump.mask)
        np.testing.assert_array_equal(found[clump.box][1], clump.maps)


def _points(first: np.ndarray) -> Objects:
    """Objects whose outline is one corner: their first pixel's."""
    n = len(first)
    steps = np.arange(n + 1, dtype=np.int64)
    return Objects(
        first=first.astype(np.int64),
        pixels=np.ones(n, np.int64),
        rings=steps,
        shells=np.ones(n, bool),
        offsets=steps,
        corners=first.astype(np.int32),
        classes=np.zeros(n, np.int32),
        measurements={},
    )
