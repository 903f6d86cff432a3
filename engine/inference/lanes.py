"""The thin layer over a device that works in the background: page-locked memory, queues of work, marks in them.

`ring.PatchRing` is written against `Lanes` alone, so its order of copies can be tried where no GPU is.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Lane(Enum):
    """Queues that work side by side; within one, work is done in the order in which it was given."""

    UPLOAD = "upload"
    COMPUTE = "compute"
    DOWNLOAD = "download"


class Lanes(Protocol):
    """A device's queues of work."""

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an array in memory of the host that the device copies from and to by itself."""
        ...

    def device(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an array in memory of the device."""
        ...

    def run(self, lane: Lane, work: Callable[[], None]) -> None:
        """Queue work; it may be done later."""
        ...

    def mark(self, lane: Lane) -> Any:
        """Return a mark behind all work that the lane has been given so far."""
        ...

    def wait(self, lane: Lane, mark: Any) -> None:
        """Let what the lane is given from now on wait for a mark of another lane."""
        ...

    def finish(self, mark: Any) -> None:
        """Wait until the work before a mark is done; raise what it raised."""
        ...


class CudaLanes:
    """Streams, events and pinned memory of a CUDA device.

    Parameters
    ----------
    device : torch.device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._streams = {lane: torch.cuda.Stream(device) for lane in Lane}

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a pinned array."""
        import torch

        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def device(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an array on the device."""
        import torch

        return torch.empty(shape, dtype=dtype, device=self._device)

    def run(self, lane: Lane, work: Callable[[], None]) -> None:
        """Queue work on the lane's stream."""
        import torch

        with torch.cuda.stream(self._streams[lane]):
            work()

    def mark(self, lane: Lane) -> torch.cuda.Event:
        """Record an event on the lane's stream."""
        import torch

        # A blocking event lets the host's thread sleep, so that its core is free for post-processing.
        event = torch.cuda.Event(blocking=True)
        event.record(self._streams[lane])
        return event

    def wait(self, lane: Lane, mark: torch.cuda.Event) -> None:
        """Let the lane's stream wait for an event."""
        self._streams[lane].wait_event(mark)

    def finish(self, mark: torch.cuda.Event) -> None:
        """Wait for an event."""
        mark.synchronize()


def lanes_of(device: torch.device) -> Lanes | None:
    """Return the lanes of a device that works in the background, or None for one that does not."""
    return CudaLanes(device) if device.type == "cuda" else None
