"""Contracts of training: the recipe of a method, and the optional hooks that it may add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Annotated:
    """An image with its nuclei.

    Attributes
    ----------
    name : str
        File name without suffix.
    image : (H, W, 3) uint8
        RGB.
    labels : (H, W) int32
        0 is background, k is nucleus k.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


@runtime_checkable
class Recipe(Protocol):
    """How a method is trained. Entry-point group ``nuclix.recipes``.

    The plugin is a frozen dataclass; its fields, all with defaults, are its hyper-parameters.
    """

    maps: ClassVar[tuple[str, ...]]
    postprocessor: ClassVar[str]

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        ...

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on."""
        ...

    def network(self) -> torch.nn.Module:
        """Return a fresh network: normalised (N, 3, H, W) floats to raw outputs (N, channels, H, W)."""
        ...

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the (channels, H, W) training target of an (H, W) label image."""
        ...

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the loss of (raw outputs, targets), both (N, channels, H, W)."""
        ...

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap a trained network so that RGB in 0..255 goes in and the named maps come out."""
        ...

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the post-processor's parameter sets among which validation AJI chooses."""
        ...


@runtime_checkable
class AuxiliaryMaps(Protocol):
    """A recipe whose targets depend on more of an image than its labels, such as where its stains are."""

    def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (planes, H, W) of an (H, W, 3) image: made once, from the image as it is, then warped like labels."""
        ...

    def targets_with_auxiliary(self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (channels, H, W) target of a patch's labels and auxiliary maps; used in place of `targets`."""
        ...


@runtime_checkable
class AcceptsPatch(Protocol):
    """A recipe that chooses patches by what they hold; one that it refuses is drawn again, of the same image."""

    def accepts(self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> bool:
        """Return whether to train on a patch with these (S, S) labels and (planes, S, S) auxiliary maps."""
        ...


@runtime_checkable
class CustomLoss(Protocol):
    """A recipe whose loss needs more than the network's outputs, such as a second pass over turned images."""

    def objective(self) -> Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the loss of (network, normalised images, targets) that training follows; `loss` then validates."""
        ...


class BatchSource(Protocol):
    """Where a training's batches come from."""

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return batch `step`, a function of the seed and the step: RGB 0..255 (N, 3, S, S) and float32 targets."""
        ...


@dataclass(frozen=True, slots=True)
class BatchShape:
    """How many patches make a batch, and their edge in pixels."""

    batch: int = 8
    patch: int = 256


@runtime_checkable
class CustomSampler(Protocol):
    """A recipe that draws its batches itself, such as unlabelled tiles at several magnifications."""

    def batches(self, images: Sequence[Annotated], shape: BatchShape, seed: int) -> BatchSource:
        """Return the source of batches from the training images."""
        ...


@runtime_checkable
class CustomSchedule(Protocol):
    """A recipe with training settings of its own; the command line's options go before them."""

    def schedule(self) -> Mapping[str, Any]:
        """Return what differs from the usual `Schedule`, by field; "augmentation" is a mapping by field."""
        ...


@runtime_checkable
class SeesWholePatch(Protocol):
    """A recipe whose network may average over its whole patch, so that no margin hides where patches meet.

    The patch grid is fixed, so results still do not depend on blocks; but two patches may judge the nuclei on their
    common edge differently.
    """

    @property
    def sees_whole_patch(self) -> bool:
        """Whether this network does."""
        ...
