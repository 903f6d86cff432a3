"""A device that runs out of memory: half the batch, the slide from its start, and a word about it in the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from end_to_end import config_for, make_model, make_slide, results
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import Done, Failed, Stopped
from nuclix.engine.batch.worker import process_slide
from nuclix.engine.errors import DeviceError, DeviceMemoryError, ModelError
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.slide import SegmentationContext, make_context

OOM = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB"


class SmallDevice:
    """A network on a device that holds so many patches at once."""

    def __init__(self, module: Any, limit: int, error: Callable[[str], Exception] = RuntimeError) -> None:
        self.module = module
        self.limit = limit
        self.error = error
        self.batches: list[int] = []

    def __call__(self, images: Any) -> Any:
        self.batches.append(len(images))
        if len(images) > self.limit:
            raise self.error(OOM)
        return self.module(images)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SegmentationContext:
    folder = tmp_path_factory.mktemp("model")
    return make_context(replace(config_for(folder, make_model(folder / "red.pt")), batch=8), time.time())


@pytest.fixture
def job(tmp_path: Path) -> SlideJob:
    return SlideJob(make_slide(tmp_path / "a.tif", 4, 300, 300), PurePosixPath("a"))


def shared_with(
    shared: SegmentationContext, out: Path, batch: int, limit: int
) -> tuple[SegmentationContext, SmallDevice]:
    out.mkdir(exist_ok=True)
    predictor = Predictor(shared.model, InferenceSettings(shared.predictor.device, shared.predictor.precision, batch))
    device = SmallDevice(predictor._module, limit)
    predictor._module = device
    return replace(shared, predictor=predictor, config=replace(shared.config, out=str(out)), first=True), device


def never() -> bool:
    return False


def test_a_slide_is_computed_with_one_batch_throughout(
    shared: SegmentationContext, job: SlideJob, tmp_path: Path
) -> None:
    plenty, _ = shared_with(shared, tmp_path / "plenty", 2, 8)
    assert isinstance(process_slide(job, plenty, RunHooks(lambda _: None, never)), Done)
    short, device = shared_with(shared, tmp_path / "short", 8, 3)
    done = process_slide(job, short, RunHooks(lambda _: None, never))
    assert isinstance(done, Done), done
    assert device.batches[:3] == [8, 4, 2] and set(device.batches[3:]) == {2}
    assert results(tmp_path / "short") == results(tmp_path / "plenty")
    assert "out of memory with 8 patches at a time: computed as with --batch 2" in done.outcome.record.warnings[0]
    assert done.outcome.record.model["batch"] == 2


def test_memory_that_becomes_short_in_the_middle_begins_the_slide_anew(
    shared: SegmentationContext, job: SlideJob, tmp_path: Path
) -> None:
    short, device = shared_with(shared, tmp_path / "short", 8, 8)

    def others_come(progress: Any) -> None:
        if progress.rows == 1:
            device.limit = 5

    done = process_slide(job, short, RunHooks(others_come, never))
    assert isinstance(done, Done) and done.outcome.record.counts["rows_resumed"] == 0
    assert done.outcome.record.counts["tiles"] == done.outcome.record.counts["tiles_total"]
    plenty, _ = shared_with(shared, tmp_path / "plenty", 4, 8)
    process_slide(job, plenty, RunHooks(lambda _: None, never))
    assert results(tmp_path / "short") == results(tmp_path / "plenty")


def test_the_next_worker_goes_on_with_the_smaller_batch(
    shared: SegmentationContext, job: SlideJob, tmp_path: Path
) -> None:
    first, _ = shared_with(shared, tmp_path / "out", 8, 2)
    assert process_slide(job, first, RunHooks(lambda _: None, lambda: True)) == Stopped()
    second, device = shared_with(shared, tmp_path / "out", 8, 2)
    done = process_slide(job, second, RunHooks(lambda _: None, never))
    assert isinstance(done, Done) and done.outcome.record.counts["rows_resumed"] == 1
    assert set(device.batches) == {2}


def test_the_next_slide_has_the_whole_batch_again(shared: SegmentationContext, job: SlideJob, tmp_path: Path) -> None:
    some, device = shared_with(shared, tmp_path / "out", 8, 3)
    assert isinstance(process_slide(job, some, RunHooks(lambda _: None, never)), Done)
    device.limit, device.batches = 8, []
    other = SlideJob(job.path, PurePosixPath("b"))
    done = process_slide(other, some, RunHooks(lambda _: None, never))
    assert isinstance(done, Done) and set(device.batches) == {8}
    assert done.outcome.record.model["batch"] == 8
    assert not any("out of memory" in warning for warning in done.outcome.record.warnings)


def test_a_device_too_small_for_one_patch_is_an_error(
    shared: SegmentationContext, job: SlideJob, tmp_path: Path
) -> None:
    short, device = shared_with(shared, tmp_path / "out", 4, 0)
    failed = process_slide(job, short, RunHooks(lambda _: None, never))
    assert isinstance(failed, Failed) and "out of memory with 1 patch(es) at a time" in failed.message
    assert not failed.traceback and device.batches == [4, 2, 1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (OOM, DeviceMemoryError),
        ("Expected ...\nRuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", DeviceMemoryError),
        ("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 9 bytes", DeviceMemoryError),
        ("CUDA error: an illegal memory access was encountered", DeviceError),
        ("CUDA error: out of memory", DeviceMemoryError),
        ("CUDA error: device-side assert triggered", DeviceError),
        ("mat1 and mat2 shapes cannot be multiplied", ModelError),
    ],
)
def test_what_a_network_raises(shared: SegmentationContext, tmp_path: Path, text: str, kind: type[Exception]) -> None:
    some, device = shared_with(shared, tmp_path / "out", 1, 0)

    def raises(_: str) -> Exception:
        return RuntimeError(text)

    device.error = raises
    with pytest.raises(kind):
        some.predictor([np.zeros((some.predictor.patch.size, some.predictor.patch.size, 3), np.uint8)])


def test_torchs_own_error_is_one_of_memory(shared: SegmentationContext, tmp_path: Path) -> None:
    import torch

    some, device = shared_with(shared, tmp_path / "out", 1, 0)
    device.error = torch.OutOfMemoryError
    with pytest.raises(DeviceMemoryError):
        some.predictor([np.zeros((some.predictor.patch.size, some.predictor.patch.size, 3), np.uint8)])
