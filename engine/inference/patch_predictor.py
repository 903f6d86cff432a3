"""What all predictors have in common, whatever computes the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError
from nuclix.engine.model_card import ModelCard, PatchShape

if TYPE_CHECKING:
    import torch

    from nuclix.engine.inference.device import CpuDevice

# Patches a forward pass: one fills two CPU cores, a GPU wants several.
CPU_BATCH = 1
_TRIAL_PX = 256  # middle of the patches that a network is tried on before the first slide, where it takes any size
MIRRORS: tuple[tuple[int, ...], ...] = ((2,), (3,), (2, 3))  # axes of a batch that are flipped


class MapSource(Protocol):
    """What the pipeline takes maps from: a predictor, or one that remembers."""

    @property
    def batch(self) -> int:
        """Patches at a time."""
        ...

    @property
    def channels(self) -> int:
        """Maps per pixel."""
        ...

    @property
    def in_flight(self) -> int:
        """Batches that may be under way when the next one is submitted."""
        ...

    @property
    def crops(self) -> bool:
        """Whether patches may be smaller than the card's, and of different shapes."""
        ...

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], Sequence[NDArray[np.float32]]]:
        """Start to compute the maps of a batch; return what waits for them."""
        ...


class PatchPredictor(ABC):
    """Runs a model on RGB patches.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    batch : int
        Patches at a time.
    tta : bool
        Average the maps of four mirror images.

    Attributes
    ----------
    asked : int
        The batch before any halving.
    name : str
        The model's name.
    patch : PatchShape
        What goes in and what comes out.
    margin_is_tested : bool
        Whether the card says what the margin changes.
    """

    def __init__(self, card: ModelCard, batch: int, tta: bool) -> None:
        self.asked = batch
        self.name = card.name
        self.margin_is_tested = bool(card.margin_test)
        self.patch: PatchShape = card.patch
        self._channels = card.channels
        self._batch = batch
        self._tta = tta

    @property
    def batch(self) -> int:
        """Patches at a time."""
        return self._batch

    @property
    def tta(self) -> bool:
        """Whether maps are averaged over mirror images."""
        return self._tta

    @property
    def channels(self) -> int:
        """Maps per pixel."""
        return self._channels

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Batches that may be on their way when the next one is submitted; 0 where nothing is gained by it."""

    @property
    def crops(self) -> bool:
        """Whether patches may be smaller than the card's, each by any multiple of its `multiple`."""
        return self.patch.dynamic

    @property
    def trial_size(self) -> int:
        """Edge of the patches that the network is tried on: small where it takes any size, as start-up waits for it."""
        multiple = self.patch.multiple
        small = 2 * self.patch.margin + -(-_TRIAL_PX // multiple) * multiple
        return min(small, self.patch.size) if self.crops else self.patch.size

    @property
    @abstractmethod
    def device(self) -> torch.device | CpuDevice:
        """Where the network runs."""

    @property
    @abstractmethod
    def precision_name(self) -> str:
        """The arithmetic as the options name it."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What computes the network, with its version."""

    def __call__(self, patches: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Compute the maps of the valid regions of patches.

        Parameters
        ----------
        patches : sequence of (size, size, 3) uint8
            At most `batch` of them, of one shape.

        Returns
        -------
        (n, channels, valid, valid) float32

        Raises
        ------
        ModelError
            If the network fails, or its output is not what its card says or not finite.
        DeviceMemoryError
            If a batch of this size does not fit into the device's memory.
        DeviceError
            If the device has failed and needs another process.
        """
        return np.stack(self.submit(patches)())

    @abstractmethod
    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], Sequence[NDArray[np.float32]]]:
        """Start to compute the maps of a batch; where nothing works in the background, compute them.

        Parameters
        ----------
        patches : sequence of (size, size, 3) uint8
            At most `batch` of them; where `crops`, they may be smaller than `size`.

        Returns
        -------
        callable
            Waits for the maps of each patch without its margin, (channels, valid, valid) float32. The arrays may be
            overwritten once `in_flight` + 1 more batches have been submitted.

        Raises
        ------
        ModelError, DeviceMemoryError, DeviceError
            As a call, here or from the callable.
        """

    @abstractmethod
    def use_batch(self, batch: int) -> None:
        """Compute `batch` patches at a time from now on."""

    @abstractmethod
    def warm_up(self) -> None:
        """Make the first batch be computed like every other one."""

    def _check_finite(self, finite: bool) -> None:
        if not finite:
            advice = "" if self.precision_name == "float32" else "; try --precision float32"
            raise ModelError(f"model {self.name}: its maps hold values that are not finite numbers{advice}")


def runs_on(predictor: PatchPredictor) -> str:
    """Return in a few words what computes a network: device, runtime with its version, number format."""
    return f"{predictor.device}: {predictor.runtime}, {predictor.precision_name}"
