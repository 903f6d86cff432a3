"""The ring of batches on a double of a device: order of copies, reuse of its memory, batches that do not fit."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from background_device import BackgroundLanes
from end_to_end import make_model
from nuclix.engine.errors import DeviceMemoryError, Interrupted, ModelError
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import LoadedModel, load_model
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.inference.ring import SLOTS
from nuclix.engine.inference.tiling import TileGrid
from nuclix.engine.segmentation.checkpoint import Checkpoint
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.objects import Objects, concatenate
from nuclix.engine.segmentation.pipeline import PipelineInputs, SlidePipeline
from nuclix.engine.slide.view import SlideView
from nuclix.plugins.postprocessors.dist import Dist
from test_pipeline import NAMES, SETTINGS, UM, ArrayReader, slide_of

BATCH = 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(make_model(tmp_path_factory.mktemp("ring") / "red.pt"))


def predictor(model: LoadedModel, lanes: BackgroundLanes | None = None, batch: int = BATCH) -> Predictor:
    return Predictor(model, InferenceSettings(CPU, torch.float32, batch), lanes)


def batches(model: LoadedModel, count: int) -> list[list[np.ndarray]]:
    rng, size = np.random.default_rng(0), model.card.patch.size
    return [
        [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(1 + index % BATCH)] for index in range(count)
    ]


@pytest.mark.parametrize("seed", [None, *range(12)])
def test_maps_are_those_of_the_synchronous_way_however_late_the_work_is_done(
    model: LoadedModel, seed: int | None
) -> None:
    plain, ringed = predictor(model), predictor(model, BackgroundLanes(seed))
    assert plain.in_flight == 0 and ringed.in_flight == SLOTS - 1
    waiting: deque[tuple[np.ndarray, Any]] = deque()
    for patches in batches(model, 3 * SLOTS + 1):
        expected = plain(patches)
        waiting.append((expected, ringed.submit([patch.copy() for patch in patches])))
        while len(waiting) > ringed.in_flight:
            wanted, result = waiting.popleft()
            assert np.array_equal(result(), wanted)
    while waiting:
        wanted, result = waiting.popleft()
        assert np.array_equal(result(), wanted)


def test_the_next_batch_is_uploaded_while_one_is_computed(model: LoadedModel) -> None:
    lanes = BackgroundLanes()
    ringed = predictor(model, lanes)
    results = [ringed.submit(patches) for patches in batches(model, SLOTS)]
    assert lanes.log == [], "nothing waits for the device while a slot is free"
    results[0]()
    assert lanes.log.index("upload") < lanes.log.index("compute") < lanes.log.index("download")
    assert lanes.log.count("upload") == SLOTS, "uploads do not wait for the network"
    for result in results[1:]:
        result()
    assert lanes.log.count("compute") == SLOTS and lanes.log.count("download") == 2 * SLOTS


def test_memory_is_taken_once(model: LoadedModel) -> None:
    lanes = BackgroundLanes()
    ringed = predictor(model, lanes)
    for patches in batches(model, 4 * SLOTS):
        ringed(patches)
    assert len(lanes.allocated) == 4 * SLOTS  # four arrays a slot
    assert lanes.allocated.count("device") == SLOTS


def test_maps_that_are_not_finite_are_told(model: LoadedModel) -> None:
    ringed = predictor(model, BackgroundLanes())
    ringed._module = lambda images: torch.full((len(images), 1, *images.shape[2:]), torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        ringed(batches(model, 1)[0])


class Scarce:
    """A network for which memory is short above so many patches."""

    def __init__(self, inner: Any, most: int) -> None:
        self.inner, self.most = inner, most
        self.sizes: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(images)


def test_a_batch_that_does_not_fit_is_told_and_a_smaller_one_works(model: LoadedModel) -> None:
    patches = batches(model, 2)[1]
    expected = predictor(model)(patches)
    ringed = predictor(model, BackgroundLanes(), batch=4)
    ringed._module = Scarce(ringed._module, 2)
    result = ringed.submit(patches)
    with pytest.raises(DeviceMemoryError, match="out of memory with 4 patch"):
        result()
    ringed.use_batch(2)
    assert np.array_equal(ringed(patches), expected)
    ringed.use_batch(ringed.asked)
    assert ringed.batch == 4
    ringed._module.most = 8
    assert np.array_equal(ringed(patches), expected), "memory that is there again is used again"


def objects_of(folder: Path, model: LoadedModel, lanes: BackgroundLanes | None, stops: int = 0) -> Objects:
    """Run a slide, interrupted after each of its first rows, by processes of their own as it were."""
    pixels = slide_of(6)
    view = SlideView(ArrayReader(pixels), Scale(UM), Scale(UM))
    grid = TileGrid(view.height, view.width, model.card.patch, 32)
    for attempt in range(stops + 1):
        own = None if lanes is None else replace(lanes, seed=attempt)
        checkpoint = Checkpoint(folder, NAMES, "key")
        network = predictor(model, own, batch=3)
        inputs = PipelineInputs(view, None, network, Dist(p2=1.0), checkpoint, None, SETTINGS)
        hooks = RunHooks(lambda _: None, partial(bool, attempt < stops))
        with suppress(Interrupted):
            SlidePipeline(inputs, grid, 2, hooks).run()
        found = list(checkpoint.blocks(size=7))
        checkpoint.close()
    return concatenate(found)


def test_a_slide_is_the_same_with_batches_in_flight_and_after_interruptions(model: LoadedModel, tmp_path: Path) -> None:
    expected = objects_of(tmp_path / "a", model, None)
    assert len(expected) > 50
    for name, found in (
        ("b", objects_of(tmp_path / "b", model, BackgroundLanes(0))),
        ("c", objects_of(tmp_path / "c", model, BackgroundLanes(0), stops=3)),
    ):
        assert np.array_equal(found.first, expected.first), name
        assert found.measurements.keys() == expected.measurements.keys()
        for key, values in expected.measurements.items():
            assert np.array_equal(found.measurements[key], values), (name, key)


def test_two_devices_do_not_share_a_ring(model: LoadedModel) -> None:
    first, second = predictor(model, BackgroundLanes(1)), predictor(model, BackgroundLanes(2))
    pairs = batches(model, 4)
    results = [(first.submit(patches), second.submit(patches), predictor(model)(patches)) for patches in pairs[:SLOTS]]
    for one, two, wanted in results:
        assert np.array_equal(two(), wanted) and np.array_equal(one(), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_streams_and_pinned_memory_of_a_real_device(tmp_path: Path) -> None:
    from nuclix.engine.inference.lanes import CudaLanes

    device, path = torch.device("cuda", 0), make_model(tmp_path / "red.pt")
    plain = predictor(load_model(path))
    given = batches(load_model(path), 8 * SLOTS)
    expected = [plain(patches) for patches in given]
    ringed = Predictor(load_model(path), InferenceSettings(device, torch.float32, BATCH), CudaLanes(device))
    waiting: deque[tuple[np.ndarray, Any]] = deque()
    for patches, wanted in zip(given, expected, strict=True):
        waiting.append((wanted, ringed.submit(patches)))
        while len(waiting) > ringed.in_flight:
            wished, result = waiting.popleft()
            np.testing.assert_allclose(result(), wished, rtol=1e-5)
