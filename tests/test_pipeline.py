"""The pipeline's objects are those of the whole map, whatever the blocks and however often it was killed."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label, maximum_filter

from nuclix.engine.contracts import Level, PatchShape, SlideInfo
from nuclix.engine.errors import Interrupted
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.segmentation.checkpoint import Checkpoint
from nuclix.engine.segmentation.hooks import PipelineFigures, Progress, RunHooks
from nuclix.engine.segmentation.measure import MeasurementSettings, measurement_names, objects_of
from nuclix.engine.segmentation.objects import Objects, canonical_order, concatenate, take
from nuclix.engine.segmentation.pipeline import PipelineInputs, SlidePipeline
from nuclix.engine.slide.tissue import TissueMask
from nuclix.engine.slide.view import SlideView
from nuclix.plugins.postprocessors.dist import Dist

UM = 0.25
PATCH = PatchShape(64, 16, 16)
SETTINGS = MeasurementSettings(families=("shape", "stain"))
NAMES = measurement_names(UM, SETTINGS)


class ArrayReader:
    """A slide in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        height, width = pixels.shape[:2]
        self.info = SlideInfo(Path("array"), "test", (Level(height, width, 1.0),), Scale(UM), None)

    def read(self, level: int, box: Box) -> np.ndarray:
        out = np.full((*box.shape, 3), 255, np.uint8)
        inside = box.intersect(Box(0, 0, *self.pixels.shape[:2]))
        out[inside.slices(box)] = self.pixels[inside.slices()]
        return out

    def close(self) -> None:
        pass


class RedPredictor:
    """A network whose map is (255 - red) / 16: pixel-wise, so its mosaic is exact."""

    channels = 1

    def __init__(self, batch: int = 1, in_flight: int = 0, crops: bool = False) -> None:
        self.batch, self.in_flight, self.crops = batch, in_flight, crops
        self.pixels = 0

    def submit(self, patches: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        return lambda: self(patches)  # as late as it can be

    def __call__(self, patches: list[np.ndarray]) -> list[np.ndarray]:
        self.pixels += sum(patch.shape[0] * patch.shape[1] for patch in patches)
        return [red_map(patch[PATCH.margin : -PATCH.margin, PATCH.margin : -PATCH.margin])[None] for patch in patches]


def red_map(pixels: np.ndarray) -> np.ndarray:
    return (255 - pixels[..., 0].astype(np.float32)) / 16


@dataclass(frozen=True)
class Surrounded:
    """A post-processor whose foreground looks two pixels around: the context must bring them."""

    maps = ("distance",)
    context: int = 2

    def foreground(self, maps: np.ndarray) -> np.ndarray:
        return maximum_filter(maps[0], 2 * self.context + 1, mode="constant") > 6

    def split(self, maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
        wide = maximum_filter(maps[0], 2 * self.context + 1, mode="constant")
        return label(mask & (wide > 8), np.ones((3, 3), int))[0].astype(np.int32)

    def score(self, maps: np.ndarray) -> np.ndarray:
        return np.clip(maps[0] / 16, 0, 1)


def slide_of(seed: int, height: int = 230, width: int = 310) -> np.ndarray:
    """Smooth blobs on background."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    depth = np.zeros((height, width))
    for _ in range(150):
        row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(3, 14)
        depth = np.maximum(depth, 1 - np.hypot(rows - row, cols - col) / radius)
    depth[100:140] *= rows[100:140] % 3 > 0
    red = 255 - np.clip(250 * depth + rng.uniform(0, 3, depth.shape) * (depth > 0), 0, 255)
    other = rng.integers(0, 256, (*depth.shape, 2))  # what stains are measured on besides
    return np.concatenate([red[..., None], other], axis=2).astype(np.uint8)


def expected(pixels: np.ndarray, post: Dist | Surrounded) -> Objects:
    """The whole map in one go."""
    context = post.context
    maps = np.pad(red_map(pixels)[None], ((0, 0), (context, context), (context, context)))
    labels = post.split(maps, post.foreground(maps))
    inner = slice(context, labels.shape[0] - context), slice(context, labels.shape[1] - context)
    found = objects_of(labels[inner], post.score(maps)[inner], Box(0, 0, *pixels.shape[:2]), UM, SETTINGS, pixels)
    return take(found, canonical_order(found.first))


@dataclass(frozen=True)
class Job:
    pixels: np.ndarray
    post: Dist | Surrounded
    block: int
    workers: int = 2
    batch: int = 1
    tissue: object = None


def pipeline(job: Job, checkpoint: Checkpoint, listen=lambda _: None, stop=lambda: False) -> PipelineFigures:
    view = SlideView(ArrayReader(job.pixels), Scale(UM), Scale(UM))
    grid = TileGrid(view.height, view.width, PATCH, job.block)
    stages = PipelineInputs(view, job.tissue, RedPredictor(job.batch), job.post, checkpoint, None, SETTINGS)
    return SlidePipeline(stages, grid, job.workers, RunHooks(listen, stop)).run()


def objects_in(checkpoint: Checkpoint) -> Objects:
    return concatenate(list(checkpoint.blocks(size=7)))


def assert_same(found: Objects, wanted: Objects) -> None:
    for name in ("first", "pixels", "rings", "shells", "offsets", "corners", "classes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    for name, values in wanted.measurements.items():
        np.testing.assert_array_equal(found.measurements[name], values, err_msg=name)


POSTS = pytest.mark.parametrize("post", [Dist(p1=0.5, p2=1.0), Surrounded()], ids=["dist", "context"])


@POSTS
@pytest.mark.parametrize("block", [7, 20, 32, 64, 100, 1000])
@pytest.mark.parametrize("batch", [1, 3])
def test_blocks_and_batches_do_not_show(tmp_path: Path, post: Dist | Surrounded, block: int, batch: int) -> None:
    pixels = slide_of(1)
    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    figures = pipeline(Job(pixels, post, block, batch=batch), checkpoint)
    wanted = expected(pixels, post)
    assert len(wanted) > 50
    assert_same(objects_in(checkpoint), wanted)
    assert figures.nuclei == len(wanted) and figures.tiles == figures.tiles_total == 8 * 10
    assert figures.pixels == pixels.shape[0] * pixels.shape[1]
    assert figures.clumps_cut == 0 and figures.first_tile_at is not None
    checkpoint.remove()


class RecordingPredictor(RedPredictor):
    """Remembers the patches of every batch."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.batches: list[list[bytes]] = []

    def __call__(self, patches: list[np.ndarray]) -> list[np.ndarray]:
        self.batches.append([patch.tobytes() for patch in patches])
        return super().__call__(patches)


def test_a_resumed_slide_has_the_batches_of_an_undisturbed_one(tmp_path: Path) -> None:
    """A patch's neighbours in its batch may change its last bits on a GPU, so batches never cross rows."""
    pixels, post = slide_of(6), Dist(p2=1.0)
    view = SlideView(ArrayReader(pixels), Scale(UM), Scale(UM))
    grid = TileGrid(view.height, view.width, PATCH, 32)

    def run(folder: Path, stop) -> RecordingPredictor:
        predictor = RecordingPredictor(3)
        checkpoint = Checkpoint(folder, NAMES, "key")
        inputs = PipelineInputs(view, None, predictor, post, checkpoint, None, SETTINGS)
        with suppress(Interrupted):
            SlidePipeline(inputs, grid, 1, RunHooks(lambda _: None, stop)).run()
        checkpoint.close()
        return predictor

    undisturbed = run(tmp_path / "a", lambda: False).batches
    first = run(tmp_path / "b", lambda: True).batches
    rest = run(tmp_path / "b", lambda: False).batches
    assert {tuple(batch) for batch in first + rest} == {tuple(batch) for batch in undisturbed}
    assert len(rest) < len(undisturbed)


@dataclass(frozen=True)
class Cells:
    """A post-processor whose nuclei are small wherever its foreground is: the squares of a grid of 6 px."""

    maps = ("distance",)
    context: int = 0

    def foreground(self, maps: np.ndarray) -> np.ndarray:
        return maps[0] > 1

    def split(self, maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
        value = np.rint(maps[0] * 16).astype(int)  # the pixel's own coordinates, modulo the grid
        inner = (value % 7 > 0) & (value // 7 % 7 > 0)
        return label(mask & inner, np.ones((3, 3), int))[0].astype(np.int32)

    def score(self, maps: np.ndarray) -> np.ndarray:
        return np.clip(maps[0] / 16, 0, 1)


def grid_image(height: int, width: int) -> np.ndarray:
    """Foreground everywhere: one clump as large as the slide, of nuclei of 6 x 6 px."""
    rows, cols = np.mgrid[:height, :width]
    return np.repeat((255 - (rows % 7 * 7 + cols % 7 + 49)).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("block", [32, 64])
def test_a_clump_over_every_limit_gives_each_nucleus_once_and_whole(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine.segmentation import clumps
    from nuclix.engine.segmentation.large_clumps import ClumpLimits

    limits = ClumpLimits(pixels=9000, overlap=8, window=50)
    monkeypatch.setattr(clumps, "ClumpLimits", lambda: limits)
    pixels, post = grid_image(230, 310), Cells()
    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    figures = pipeline(Job(pixels, post, block), checkpoint)
    assert figures.clumps_cut > 0
    assert_same(objects_in(checkpoint), expected(pixels, post))
    checkpoint.remove()


class Stop(Exception):  # noqa: N818
    """What interrupts a run in the tests."""


@POSTS
@pytest.mark.parametrize("seed", range(3))
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, post: Dist | Surrounded, seed: int) -> None:
    pixels = slide_of(seed)
    pick = random.Random(seed)
    resumed = []
    for _ in range(200):
        checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
        left = pick.randint(5, 40)

        def listen(progress: Progress) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Stop

        try:
            resumed.append(pipeline(Job(pixels, post, 32), checkpoint, listen).rows_resumed)
        except Stop:
            # A kill leaves what was written after the last commit behind.
            checkpoint.append(expected(pixels, post))
            checkpoint.close()
        else:
            break
    assert resumed and resumed[0] > 0
    assert_same(objects_in(checkpoint), expected(pixels, post))
    checkpoint.remove()


def test_asked_to_stop_it_ends_after_a_committed_row_and_goes_on_from_there(tmp_path: Path) -> None:
    pixels, post = slide_of(4), Dist(p2=1.0)
    rows = []
    for _ in range(20):
        checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
        try:
            rows.append(pipeline(Job(pixels, post, 32), checkpoint, stop=lambda: True).rows_resumed)
        except Interrupted:
            checkpoint.close()
            continue
        break
    assert rows == [7]
    assert_same(objects_in(checkpoint), expected(pixels, post))
    checkpoint.remove()


def test_a_checkpoint_of_another_key_is_begun_anew(tmp_path: Path) -> None:
    pixels, post = slide_of(2), Dist(p2=1.0)
    first = Checkpoint(tmp_path / "checkpoint", NAMES, "one")
    pipeline(Job(pixels, post, 64), first)
    first.close()
    second = Checkpoint(tmp_path / "checkpoint", NAMES, "two")
    assert not second.state and len(second) == 0
    assert pipeline(Job(pixels, post, 64), second).rows_resumed == 0
    assert_same(objects_in(second), expected(pixels, post))
    second.remove()


class HalfTissue:
    """Tissue on the left only."""

    area_mm2 = 0.0

    def within(self, box: Box, reach: int) -> Box | None:
        return box if box.col - reach < 100 else None


def test_background_is_not_computed(tmp_path: Path) -> None:
    pixels, post = slide_of(3), Dist(p2=1.0)
    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    figures = pipeline(Job(pixels, post, 64, tissue=HalfTissue()), checkpoint)
    assert figures.tiles == figures.tiles_total == 8 * 4
    blank = pixels.copy()
    blank[:, 4 * PATCH.valid :] = 255
    assert_same(objects_in(checkpoint), expected(blank, post))
    checkpoint.remove()


@pytest.mark.parametrize("seed", range(4))
def test_only_what_is_near_tissue_is_computed_whatever_the_network_takes(tmp_path: Path, seed: int) -> None:
    """The nuclei are those of a slide that is white elsewhere, also where the network takes no parts of patches."""
    pixels, post = slide_of(seed, 700, 900), Dist(p2=1.0)
    patch = PatchShape(PATCH.margin * 2 + 320, PATCH.margin, 16, dynamic=True)
    tissue = TissueMask(np.random.default_rng(seed).random((700 // 20, 900 // 20)) < 0.005, 20.0, 0.0)
    view = SlideView(ArrayReader(pixels), Scale(UM), Scale(UM))
    grid = TileGrid(view.height, view.width, patch, 400)
    blank = np.full_like(pixels, 255)
    for row in range(grid.unit_rows):
        for col in range(grid.unit_cols):
            for core in grid.patches_of(row, col):
                if (near := tissue.within(core, patch.margin)) is not None:
                    part = grid.part(core, near).intersect(view.box)
                    blank[part.slices()] = pixels[part.slices()]
    computed = []
    for crops in (True, False):
        checkpoint = Checkpoint(tmp_path / f"checkpoint-{crops}", NAMES, "key")
        predictor = RedPredictor(2, crops=crops)
        inputs = PipelineInputs(view, tissue, predictor, post, checkpoint, None, SETTINGS)
        SlidePipeline(inputs, grid, 2, RunHooks(lambda _: None, lambda: False)).run()
        assert_same(objects_in(checkpoint), expected(blank, post))
        computed.append(predictor.pixels)
        checkpoint.remove()
    assert 0 < computed[0] < computed[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (33, 32), (31, 1)])
def test_slides_of_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels, post = np.zeros((*shape, 3), np.uint8), Dist(p2=1.0)
    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    pipeline(Job(pixels, post, 64), checkpoint)
    assert_same(objects_in(checkpoint), expected(pixels, post))
    assert len(checkpoint) == 1
    checkpoint.remove()


def test_an_empty_slide_leaves_an_empty_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    figures = pipeline(Job(np.full((90, 90, 3), 255, np.uint8), Dist(), 64), checkpoint)
    assert figures.nuclei == 0 and list(checkpoint.blocks()) == []
    checkpoint.remove()


@dataclass(frozen=True)
class Broken(Dist):
    """A plugin that fails in a worker."""

    def split(self, maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("broken plugin")


def test_an_exception_in_a_worker_reaches_the_caller_and_stops_the_threads(tmp_path: Path) -> None:
    import threading

    checkpoint = Checkpoint(tmp_path / "checkpoint", NAMES, "key")
    with pytest.raises(ZeroDivisionError, match="broken plugin"):
        pipeline(replace(Job(slide_of(0), Broken(p2=1.0), 64)), checkpoint)
    checkpoint.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nuclix-")]
