"""Patches through a network that another runtime than PyTorch computes: arrays in, arrays out, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError
from nuclix.engine.inference.device import CpuDevice
from nuclix.engine.inference.patch_predictor import MIRRORS, PatchPredictor

if TYPE_CHECKING:
    from nuclix.engine.inference.runtime import ArraySettings, PatchQueue
    from nuclix.engine.model_card import ModelCard


class ArrayPredictor(PatchPredictor):
    """Runs a network of another runtime on a CPU, one patch a pass.

    A batch is only a number of patches here: each is computed by itself, so that its maps are the same in any batch.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    queue : PatchQueue
        The network, ready to compute.
    settings : ArraySettings
        What it was opened with.
    """

    def __init__(self, card: ModelCard, queue: PatchQueue, settings: ArraySettings) -> None:
        super().__init__(card, settings.batch, settings.tta)
        self._queue = queue
        self._precision = settings.precision

    @property
    def in_flight(self) -> int:
        """Batches that keep all of the queue's places busy while another one is prepared."""
        jobs = self.batch * (1 + len(MIRRORS) if self.tta else 1)
        return -(-self._queue.places // jobs)

    @property
    def device(self) -> CpuDevice:
        """The CPU."""
        return CpuDevice()

    @property
    def precision_name(self) -> str:
        """The arithmetic as the options name it."""
        return self._precision

    @property
    def runtime(self) -> str:
        """What computes the network, with its version."""
        return self._queue.runtime

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], Sequence[NDArray[np.float32]]]:
        """Queue patches; see `PatchPredictor.submit`. The maps are the caller's own."""
        waiting = [self._maps(patch) for patch in patches]

        def result() -> list[NDArray[np.float32]]:
            maps = [wait() for wait in waiting]
            self._check_finite(all(bool(np.isfinite(each).all()) for each in maps))
            return maps

        return result

    def _maps(self, patch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Queue a patch; return what waits for the (channels, valid, valid) maps of its middle."""
        rows, cols = (slice(self.patch.margin, extent - self.patch.margin) for extent in patch.shape[:2])
        flips = [tuple(axis - 2 for axis in axes) for axes in MIRRORS] if self.tta else []  # of rows and columns
        waiting = [((), self._queued(patch)), *((axes, self._queued(np.flip(patch, axes))) for axes in flips)]

        def result() -> NDArray[np.float32]:
            maps = waiting[0][1]()
            for axes, wait in waiting[1:]:
                maps = maps + np.flip(wait(), tuple(axis + 1 for axis in axes))
            return np.ascontiguousarray((maps / len(waiting) if flips else maps)[:, rows, cols])

        return result

    def _queued(self, patch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Queue a patch; return what waits for its (channels, size, size) maps."""
        try:
            wait = self._queue.submit(patch)
        except RuntimeError as error:
            raise self._failure(error) from error

        def result() -> NDArray[np.float32]:
            try:
                return wait()
            except RuntimeError as error:
                raise self._failure(error) from error

        return result

    def _failure(self, error: Exception) -> ModelError:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return ModelError(f"model {self.name}: the network failed: {lines[-1]}")

    def use_batch(self, batch: int) -> None:
        """Take `batch` patches at a time from now on; neither memory nor results depend on it."""
        self._batch = batch

    def warm_up(self) -> None:
        """Do nothing: the network is compiled before its first patch."""
