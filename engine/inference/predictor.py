"""Patches through the network: fixed batch shape, channels last, half precision where the device has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.errors import DeviceError, DeviceMemoryError, ModelError

if TYPE_CHECKING:
    import torch

    from nuclix.engine.inference.model_file import LoadedModel

# Patches a forward pass: one fills two CPU cores, a GPU wants several.
CPU_BATCH = 1
CUDA_BATCH = 8
MIRRORS: tuple[tuple[int, ...], ...] = ((2,), (3,), (2, 3))  # axes of a batch that are flipped
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
    """

    device: torch.device
    precision: torch.dtype
    batch: int
    tta: bool = False


def default_batch(device: torch.device) -> int:
    """Return the number of patches that suits the device."""
    return CUDA_BATCH if device.type == "cuda" else CPU_BATCH


class Predictor:
    """Runs a loaded model on RGB patches.

    Parameters
    ----------
    model : LoadedModel
        Network and card.
    settings : InferenceSettings
        Device, precision and batch.

    Attributes
    ----------
    asked : int
        The batch before any halving.
    """

    def __init__(self, model: LoadedModel, settings: InferenceSettings) -> None:
        self._model = model
        self._module = model.module.to(settings.device)
        self._settings = settings
        self.asked = settings.batch
        self._channels = model.card.channels
        self._name = model.card.name
        self.patch: PatchShape = model.card.patch

    @property
    def batch(self) -> int:
        """Patches a forward pass."""
        return self._settings.batch

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._settings.device

    @property
    def precision(self) -> torch.dtype:
        """The arithmetic of the network."""
        return self._settings.precision

    @property
    def tta(self) -> bool:
        """Whether maps are averaged over mirror images."""
        return self._settings.tta

    @property
    def channels(self) -> int:
        """Maps per pixel."""
        return self._channels

    def __call__(self, patches: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute the maps of patches' middles.

        Parameters
        ----------
        patches : sequence of (size, size, 3) uint8
            At most `batch` of them.

        Returns
        -------
        (n, channels, core, core) float32

        Raises
        ------
        ModelError
            If the network fails or its output has another shape than its card says.
        DeviceMemoryError
            If a batch of this size does not fit into the device's memory.
        DeviceError
            If the device has failed and needs another process.
        """
        try:
            return self._forward(patches)
        except RuntimeError as error:  # of which torch.OutOfMemoryError is a kind
            raise self._failure(error) from error

    def _forward(self, patches: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import torch

        size, margin = self.patch.size, self.patch.margin
        stack = np.zeros((self.batch, size, size, 3), np.uint8)
        for slot, patch in enumerate(patches):
            stack[slot] = patch
        half = self._settings.precision != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self._settings.device.type, self._settings.precision if half else None, enabled=half),
        ):
            # (N, H, W, 3) seen as (N, 3, H, W) is what PyTorch calls channels last: no copy.
            images = torch.from_numpy(stack).to(self._settings.device).permute(0, 3, 1, 2)
            maps = self._mirrored(images) if self.tta else self._module(images)
            if tuple(maps.shape) != (self.batch, self._channels, size, size):
                want = (self.batch, self._channels, size, size)
                raise ModelError(f"model {self._name}: output is {tuple(maps.shape)}, its metadata promise {want}")
            inner = slice(margin, size - margin)
            return maps[: len(patches), :, inner, inner].float().contiguous().cpu().numpy()

    def _mirrored(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of the maps of the four mirror images, turned back."""
        maps = self._module(images).float()
        for axes in MIRRORS:
            maps += self._module(images.flip(axes)).flip(axes)
        return maps / (1 + len(MIRRORS))

    def _failure(self, error: RuntimeError) -> ModelError | DeviceMemoryError | DeviceError:
        text = str(error)
        if any(words in text for words in _NO_MEMORY):
            return DeviceMemoryError(
                f"model {self._name}: {self._settings.device} is out of memory with {self.batch} patch(es) at a time"
            )
        if any(words in text for words in _BROKEN):
            return DeviceError(f"{self._settings.device} failed: {_last_line(error)}")
        return ModelError(f"model {self._name}: the network failed: {_last_line(error)}")

    def use_batch(self, batch: int) -> None:
        """Compute `batch` patches at a time from now on, and give back what larger batches had taken.

        Results of another batch may differ in the last bits, so a slide is computed with one batch throughout.
        """
        import torch

        self._settings = replace(self._settings, batch=batch)
        if self._settings.device.type == "cuda":
            torch.cuda.empty_cache()


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
