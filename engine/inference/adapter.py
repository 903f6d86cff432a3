"""A user's network behind the interface of a model file: RGB bytes in, finished maps out, as its card says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nuclix.engine.model_card import BGR, NHWC, NONE, SIGMOID, UNIT, InputFormat, ModelCard, OutputPart


class AdaptedNetwork(torch.nn.Module):
    """Prepares what a network takes and arranges what it gives.

    Parameters
    ----------
    network : callable
        From a batch of images to a tensor, or to a tuple or dictionary of tensors.
    card : ModelCard
        Its `input`, `outputs`, `stride` and `crop`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Callable[[torch.Tensor], Any], card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self._input = card.input
        self._parts = card.outputs or (OutputPart(),)
        self._stride, self._crop = card.stride, card.crop
        for name, values, default in (("mean", card.input.mean, 0.0), ("std", card.input.std, 1.0)):
            numbers = torch.tensor(values or (default,) * 3, dtype=torch.float32)
            self.register_buffer(name, numbers.view(1, 3, 1, 1), persistent=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, channels, H, W) maps of (N, 3, H, W) RGB in 0..255; pixels that the network crops are 0."""
        outputs = self.raw(images)
        maps = torch.cat([self._selected(outputs, part) for part in self._parts], 1)
        if self._stride > 1:
            maps = maps.repeat_interleave(self._stride, 2).repeat_interleave(self._stride, 3)
        return torch.nn.functional.pad(maps, [self._crop] * 4) if self._crop else maps

    def raw(self, images: torch.Tensor) -> Any:
        """Return what the network itself gives for RGB in 0..255."""
        return self.network(self._prepared(images))

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        fmt = self._input
        if fmt != InputFormat():
            if fmt.channels == BGR:
                images = images.flip(1)
            if fmt.dtype != "uint8":
                images = images.float()
            if fmt.range == UNIT:
                images = images / 255
            if fmt.mean or fmt.std:
                images = (images - self.mean) / self.std
            if fmt.layout == NHWC:
                images = images.permute(0, 2, 3, 1)
        return images

    def _selected(self, outputs: Any, part: OutputPart) -> torch.Tensor:
        maps: torch.Tensor = outputs
        if part.key:
            maps = _chosen(outputs, part.key)
        elif isinstance(outputs, tuple | list):
            maps = outputs[0]
        if self._input.layout == NHWC:
            maps = maps.permute(0, 3, 1, 2)
        if part.activation != NONE:
            maps = maps.float().sigmoid() if part.activation == SIGMOID else maps.float().softmax(1)
        if not torch.jit.is_tracing() and any(k >= maps.shape[1] for k in part.channels):  # type: ignore[attr-defined]
            raise ValueError(
                f"the output {part.key or 'of the network'} has {maps.shape[1]} channels, counted from 0: the card "
                f"asks for {', '.join(map(str, part.channels))}"
            )
        return torch.cat([maps[:, k : k + 1] for k in part.channels], 1) if part.channels else maps


def described(outputs: Any) -> str:
    """Return the shapes of what a network gives, with their names or numbers."""
    if isinstance(outputs, dict):
        return "a dictionary of " + ", ".join(f"{key} {described(value)}" for key, value in outputs.items())
    if isinstance(outputs, tuple | list):
        return "a tuple of " + ", ".join(f"{k}: {described(value)}" for k, value in enumerate(outputs))
    return str(tuple(outputs.shape)) if isinstance(outputs, torch.Tensor) else type(outputs).__name__


def _chosen(outputs: Any, key: str) -> Any:
    """Return an output by its name, or by its number where it has none of that name."""
    if isinstance(outputs, dict) and key not in outputs and key.isdigit():
        outputs = tuple(outputs.values())
    try:
        return outputs[int(key) if isinstance(outputs, tuple | list) else key]
    except (KeyError, IndexError, ValueError, TypeError):
        raise ValueError(f"there is no output {key!r}: the network gives {described(outputs)}") from None
