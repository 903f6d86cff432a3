"""A ring of batches on a device: one is copied there while another is computed and the maps of a third come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.inference.lanes import Lane, Lanes
from nuclix.engine.model_card import PatchShape

if TYPE_CHECKING:
    import torch

SLOTS = 3  # one for each lane


@dataclass(slots=True)
class _Slot:
    """The memory of one batch, and the mark behind its last copy.

    Attributes
    ----------
    pixels, images : torch.Tensor
        (batch, size, size, 3) uint8, on the host and on the device.
    maps, finite : torch.Tensor
        On the host: (batch, channels, valid, valid) float32, and whether all of them are finite.
    done : Any
        Mark behind the copy of `maps`; None where nothing is on its way.
    """

    pixels: torch.Tensor
    images: torch.Tensor
    maps: torch.Tensor
    finite: torch.Tensor
    done: Any = None


@dataclass(frozen=True, slots=True)
class RingShape:
    """Sizes of a ring's arrays: patches a batch, their shape, maps a pixel."""

    batch: int
    patch: PatchShape
    channels: int


class PatchRing:
    """Computes batches in the order in which they are given, up to three at a time.

    Parameters
    ----------
    lanes : Lanes
        The device.
    shape : RingShape
        Sizes of the arrays.
    compute : callable
        From (batch, 3, size, size) uint8 on the device to (batch, channels, size, size) maps there.
    """

    def __init__(self, lanes: Lanes, shape: RingShape, compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
        import torch

        self._lanes = lanes
        self._patch = shape.patch
        self._compute = compute
        size, valid = shape.patch.size, shape.patch.valid
        pixels, maps = (shape.batch, size, size, 3), (shape.batch, shape.channels, valid, valid)
        self._slots = [
            _Slot(
                lanes.host(pixels, torch.uint8),
                lanes.device(pixels, torch.uint8),
                lanes.host(maps, torch.float32),
                lanes.host((1,), torch.bool),
            )
            for _ in range(SLOTS)
        ]
        self._next = 0

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], tuple[NDArray[np.float32], bool]]:
        """Send a batch on its way.

        Parameters
        ----------
        patches : sequence of (size, size, 3) uint8
            At most `batch` of them; they may be overwritten when this returns.

        Returns
        -------
        callable
            Waits for the maps and returns them, (n, channels, valid, valid) float32, and whether all are finite. The
            array is part of the ring: it is valid until three more batches have been submitted.
        """
        slot, lanes = self._slots[self._next], self._lanes
        self._next = (self._next + 1) % SLOTS
        if slot.done is not None:
            lanes.finish(slot.done)  # its arrays are read until then
        for row, patch in enumerate(patches):
            slot.pixels[row].numpy()[:] = patch
        slot.pixels[len(patches) :].zero_()
        lanes.run(Lane.UPLOAD, lambda: _copy(slot.images, slot.pixels))
        lanes.wait(Lane.COMPUTE, lanes.mark(Lane.UPLOAD))
        found: list[torch.Tensor] = []  # kept until the copy is done: its memory belongs to another lane
        lanes.run(Lane.COMPUTE, lambda: found.extend(self._valid(slot.images)))
        lanes.wait(Lane.DOWNLOAD, lanes.mark(Lane.COMPUTE))
        lanes.run(Lane.DOWNLOAD, lambda: _copy(slot.maps, found[0]))
        lanes.run(Lane.DOWNLOAD, lambda: _copy(slot.finite, found[1]))
        slot.done = done = lanes.mark(Lane.DOWNLOAD)

        def result() -> tuple[NDArray[np.float32], bool]:
            lanes.finish(done)
            found.clear()
            return slot.maps[: len(patches)].numpy(), bool(slot.finite)

        return result

    def _valid(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the valid regions of the maps, and whether all of their values are finite."""
        import torch

        # (N, H, W, 3) seen as (N, 3, H, W) is what PyTorch calls channels last: no copy.
        maps = self._compute(images.permute(0, 3, 1, 2))
        inner = slice(self._patch.margin, self._patch.size - self._patch.margin)
        valid = maps[..., inner, inner].float().contiguous()
        return valid, torch.isfinite(valid).all().reshape(1)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source, non_blocking=True)
