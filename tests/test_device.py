"""What is asked of a CUDA device and what it is told, with a double of PyTorch's CUDA where there is no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from end_to_end import make_model
from nuclix.engine.errors import DeviceError, UsageError
from nuclix.engine.inference import device as module
from nuclix.engine.inference.device import choose_device, choose_precision, prepare_device
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.inference.predictor import InferenceSettings, Predictor

HAS_GPU = torch.cuda.is_available()


class FakeCuda:
    """Four devices, of which the last has bfloat16 in hardware; the others emulate it."""

    def __init__(self) -> None:
        self.current = 0
        self.taken: set[int] = set()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index or 0
        yield
        self.current = before

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return including_emulation or self.current == 3

    def set_device(self, device: torch.device) -> None:
        if device.index in self.taken:
            raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with ...")
        self.current = device.index or 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    for name in ("device", "is_bf16_supported", "set_device"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_jit_set_texpr_fuser_enabled", lambda on: setattr(fake, "fuser", on))
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32)
    yield fake
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_bfloat16_only_where_the_chosen_device_has_it(cuda: FakeCuda) -> None:
    assert choose_precision("auto", choose_device("cuda:0")) == torch.float16
    assert choose_precision("auto", choose_device("cuda:3")) == torch.bfloat16
    assert cuda.current == 0
    assert choose_device("auto") == torch.device("cuda", 0) and choose_device("cuda").index == 0


@pytest.mark.usefixtures("cuda")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no device 'cuda:4'"):
        choose_device("cuda:4")


@pytest.mark.parametrize("tf32", [False, True])
def test_a_worker_has_one_device_and_repeats_its_results(cuda: FakeCuda, tf32: bool) -> None:
    prepare_device(torch.device("cuda", 2), tf32=tf32)
    assert cuda.current == 2
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
    assert cuda.fuser is False  # type: ignore[attr-defined]


def test_a_device_that_is_taken_is_an_error_of_the_device(cuda: FakeCuda) -> None:
    cuda.taken.add(1)
    with pytest.raises(DeviceError, match="cuda:1 can't be used: CUDA error: all CUDA-capable devices are busy"):
        prepare_device(torch.device("cuda", 1))


def test_tf32_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tf32"):
        choose_precision("tf32", torch.device("cpu"))
    assert choose_precision("tf32", torch.device("cuda", 0)) == torch.float32
    assert module.TF32 in module.PRECISIONS


class Shifting:
    """A module whose first calls differ from the later ones, as TorchScript's do on CUDA."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(images) + (1e-3 if self.calls < 3 else 0.0)


def test_after_the_warm_up_all_batches_are_computed_alike(tmp_path: Path) -> None:
    model = load_model(make_model(tmp_path / "red.pt"))
    predictor = Predictor(model, InferenceSettings(torch.device("cpu"), torch.float32, 2))
    predictor._module = Shifting(predictor._module)
    patch = np.full((64, 64, 3), 100, np.uint8)
    predictor.warm_up()
    assert np.array_equal(predictor([patch]), predictor([patch]))


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
def test_the_first_batch_of_a_process_equals_every_later_one(tmp_path: Path) -> None:
    from nuclix.engine.inference.model_file import find_model

    device = choose_device("cuda")
    prepare_device(device)
    model = load_model(find_model("dist-kumar16"))
    settings = InferenceSettings(device, choose_precision("auto", device), 2)
    rng = np.random.default_rng(0)
    size = model.card.patch.size
    patches = [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(2)]
    found = []
    for precision in (settings.precision, torch.float32):
        for _ in range(2):
            predictor = Predictor(model, replace(settings, precision=precision))
            predictor.warm_up()
            found.append(predictor(patches))
            assert all(np.array_equal(found[-1], predictor(patches)) for _ in range(4))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[2], found[3])
