"""Patches through the network: fixed batch shape, channels last, half precision where the device has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DeviceError, DeviceMemoryError, ModelError
from nuclix.engine.inference.lanes import Lanes, lanes_of
from nuclix.engine.inference.patch_predictor import CPU_BATCH, MIRRORS, PatchPredictor
from nuclix.engine.inference.ring import SLOTS, PatchRing, RingShape

if TYPE_CHECKING:
    import torch

    from nuclix.engine.inference.model_file import LoadedModel

T = TypeVar("T")

CUDA_BATCH = 8  # patches a forward pass
_WARM_UP_PASSES = 3  # two that TorchScript profiles, one that it optimises
# How CUDA, cuDNN, cuBLAS and PyTorch's CPU allocator say that memory is short: inside TorchScript the exception's
# own type is lost, and the libraries have none.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
# After any other error of the CUDA runtime every later call fails, too.
_BROKEN = ("CUDA error", "device-side assert", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """How the network is run.

    Attributes
    ----------
    device : torch.device
        Where.
    precision : torch.dtype
        float32, or a half precision that autocast uses.
    batch : int
        Patches a forward pass; a shorter batch is padded so that arithmetic does not change.
    tta : bool
        Average the maps of four mirror images (test-time augmentation), at four times the work.
    tf32 : bool
        Let CUDA round the factors of float32 products to 10 bits.
    """

    device: torch.device
    precision: torch.dtype
    batch: int
    tta: bool = False
    tf32: bool = False


def default_batch(device: torch.device) -> int:
    """Return the number of patches that suits the device."""
    return CUDA_BATCH if device.type == "cuda" else CPU_BATCH


class Predictor(PatchPredictor):
    """Runs a loaded model in PyTorch.

    Parameters
    ----------
    model : LoadedModel
        Network and card.
    settings : InferenceSettings
        Device, precision and batch.
    lanes : Lanes, optional
        What works in the background; by default the streams of a CUDA device, and nothing for a CPU.

    Raises
    ------
    DeviceMemoryError, DeviceError
        If the network does not fit into the device's memory, or the device has failed.
    """

    def __init__(self, model: LoadedModel, settings: InferenceSettings, lanes: Lanes | None = None) -> None:
        super().__init__(model.card, settings.batch, settings.tta)
        self._settings = settings
        self._ring: PatchRing | None = None
        try:
            self._module = model.module.to(settings.device)
            self._lanes = lanes or lanes_of(settings.device)
        except RuntimeError as error:
            raise self._failure(error) from error

    @property
    def in_flight(self) -> int:
        """Batches that may be on their way when the next one is submitted; 0 where nothing is gained by it."""
        return 0 if self._lanes is None else SLOTS - 1

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._settings.device

    @property
    def precision(self) -> torch.dtype:
        """The arithmetic of the network."""
        return self._settings.precision

    @property
    def precision_name(self) -> str:
        """The arithmetic as the options name it."""
        return "tf32" if self._settings.tf32 else str(self.precision).removeprefix("torch.")

    @property
    def runtime(self) -> str:
        """PyTorch and its version."""
        import torch

        return f"torch {torch.__version__}"

    @property
    def crops(self) -> bool:
        """Whether patches may be smaller than the card's: on a CPU. A GPU's batches and buffers have one shape."""
        return self.patch.dynamic and self._lanes is None

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], Sequence[NDArray[np.float32]]]:
        """Start to compute the maps of a batch; without lanes, compute them. See `PatchPredictor.submit`."""
        if self._lanes is None:
            computed = self._guarded(lambda: self._computed(patches))
            return lambda: computed
        ring = self._guarded(self._made_ring)
        wait = self._guarded(lambda: ring.submit(patches))

        def result() -> list[NDArray[np.float32]]:
            maps, finite = self._guarded(wait)
            self._check_finite(finite)
            return list(maps)

        return result

    def _made_ring(self) -> PatchRing:
        if self._ring is None:
            assert self._lanes is not None
            self._ring = PatchRing(self._lanes, RingShape(self.batch, self.patch, self.channels), self.compute)
        return self._ring

    def _guarded(self, work: Callable[[], T]) -> T:
        """Return what `work` does; say in nuclix' terms what the device raises."""
        import torch

        try:
            return work()
        except (RuntimeError, torch.jit.Error) as error:  # torch.OutOfMemoryError is of the first kind
            self._ring = None  # what is under way in it has failed with this batch
            raise self._failure(error) from error

    def _computed(self, patches: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Compute whole patches together, and smaller ones each by itself, so that no map depends on the batch."""
        whole = (self.patch.size, self.patch.size, 3)
        together = [patch for patch in patches if patch.shape == whole]
        found = iter(self._forward(together, self.batch) if together else ())
        return [next(found) if patch.shape == whole else self._forward([patch], 1)[0] for patch in patches]

    def _forward(self, patches: Sequence[NDArray[np.uint8]], batch: int) -> NDArray[np.float32]:
        import torch

        height, width = patches[0].shape[:2]
        margin = self.patch.margin
        stack = np.zeros((batch, height, width, 3), np.uint8)
        for slot, patch in enumerate(patches):
            stack[slot] = patch
        with torch.inference_mode():
            # (N, H, W, 3) seen as (N, 3, H, W) is what PyTorch calls channels last: no copy.
            maps = self.compute(torch.from_numpy(stack).to(self._settings.device).permute(0, 3, 1, 2))
            found = maps[: len(patches), :, margin : height - margin, margin : width - margin].float().contiguous()
            self._check_finite(bool(torch.isfinite(found).all()))
            return found.cpu().numpy()

    def compute(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of whole patches on the device, in the arithmetic of the settings.

        Parameters
        ----------
        images : (n, 3, size, size) uint8
            On the device, channels last.

        Returns
        -------
        (n, channels, size, size) floating point
            On the device; work may still be queued there.

        Raises
        ------
        ModelError
            If the output is not what the card says.
        RuntimeError
            What PyTorch raises if the network fails.
        """
        import torch

        half = self._settings.precision != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self._settings.device.type, self._settings.precision if half else None, enabled=half),
        ):
            return self._mirrored(images) if self._settings.tta else self._maps(images)

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network and check what it returns."""
        import torch

        maps = self._module(images)
        want = (len(images), self._channels, *images.shape[2:])
        if not isinstance(maps, torch.Tensor):
            raise ModelError(
                f"model {self.name}: the network returns a {type(maps).__name__}, not one tensor of shape {want}; "
                "wrap it in a module that returns the maps only"
            )
        if tuple(maps.shape) != want:
            raise ModelError(f"model {self.name}: the output's shape is {tuple(maps.shape)}; its card says {want}")
        if not maps.is_floating_point():
            raise ModelError(f"model {self.name}: the output is of type {maps.dtype}; maps are floating-point numbers")
        return maps

    def _mirrored(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of the maps of the four mirror images, turned back."""
        maps = self._maps(images).float()
        for axes in MIRRORS:
            maps += self._maps(images.flip(axes)).flip(axes)
        return maps / (1 + len(MIRRORS))

    def _failure(self, error: Exception) -> ModelError | DeviceMemoryError | DeviceError:
        text = str(error)
        if any(words in text for words in _NO_MEMORY):
            return DeviceMemoryError(
                f"model {self.name}: {self._settings.device} is out of memory with {self.batch} patch(es) at a time"
            )
        if any(words in text for words in _BROKEN):
            return DeviceError(f"{self._settings.device} failed: {_last_line(error)}")
        advice = '; a network that takes numbers needs `dtype = "float32"` in [input] of its card'
        of_type = "unsigned char" in text or "Byte" in text
        return ModelError(f"model {self.name}: the network failed: {_last_line(error)}{advice if of_type else ''}")

    def use_batch(self, batch: int) -> None:
        """Compute `batch` patches at a time from now on, and release the memory that larger batches have taken.

        Results of another batch may differ in the last bits, so a slide is computed with one batch throughout.
        """
        import torch

        if batch == self.batch:
            return
        self._batch = batch
        self._ring = None
        if self._settings.device.type == "cuda":
            torch.cuda.empty_cache()
            self.warm_up()

    def warm_up(self) -> None:
        """Run empty batches, so that the first batch of a slide is computed like every other one.

        TorchScript rewrites a graph after it has seen it run. Without this, the first batches after a restart would be
        computed by another graph than the same patches of an undisturbed run.
        """
        size = self.trial_size
        empty = [np.zeros((size, size, 3), np.uint8)] * self.batch
        for _ in range(_WARM_UP_PASSES):
            self(empty)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
