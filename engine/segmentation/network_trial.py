"""A network tried on patches of an image, before it becomes a model file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError
from nuclix.engine.inference.tiling import PART_STEP
from nuclix.engine.model_card import ModelCard, PatchShape

if TYPE_CHECKING:
    import torch

    from nuclix.engine.inference.adapter import AdaptedNetwork

# Of a map's range: what a padded border changes by less than this is noise of the arithmetic.
MARGIN_TOLERANCE = 1e-3
_TIMED = 2
# What a network raises on an input that it does not take, besides `torch.jit.Error`.
_FAILURES = (RuntimeError, KeyError, IndexError, TypeError, AttributeError, ValueError)
_OTHER_INPUT = "channels, but got 3"  # in PyTorch's message about the first convolution


class NetworkTrial:
    """Runs the network on patches from the middle of an image.

    Parameters
    ----------
    module : callable
        From a batch in the card's input format to what the network gives.
    card : ModelCard
        Of the network, with a crop of 0.
    path : Path
        The network's file, for messages.

    Attributes
    ----------
    crop : int
        Pixels that the network leaves out on every side, once `find_crop` has run.
    """

    def __init__(self, module: Callable[[torch.Tensor], Any], card: ModelCard, path: Path) -> None:
        self._module = module
        self.card = card
        self.crop = 0
        self._path = path

    def network(self, crop: int) -> AdaptedNetwork:
        """Return the network with what its card asks for around it; `crop` pixels are put back on every side."""
        from nuclix.engine.inference.adapter import AdaptedNetwork

        return AdaptedNetwork(self._module, replace(self.card, crop=crop)).eval()

    def run(self, image: NDArray[np.uint8], size: int, cropped: bool = False) -> NDArray[np.float32]:
        """Return the (channels, H, W) maps of the middle `size` pixels; not padded where `cropped`.

        Raises
        ------
        ModelError
            If the network fails, or gives other channels than the card names.
        """
        import torch

        from nuclix.engine.inference.adapter import described

        top, left = ((extent - size) // 2 for extent in image.shape[:2])
        patch = np.ascontiguousarray(image[top : top + size, left : left + size])
        batch = torch.from_numpy(patch[None]).permute(0, 3, 1, 2)
        network = self.network(0 if cropped else self.crop)
        try:
            with torch.inference_mode():
                maps = network(batch)
        except (*_FAILURES, torch.jit.Error) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            hint = "; nuclix gives RGB: put a module in front that makes its input of them" * (
                _OTHER_INPUT in lines[-1]
            )
            raise ModelError(
                f"{self._path}: fails on a patch of {size} px as its card describes it (input, outputs): "
                f"{lines[-1]}{hint}"
            ) from error
        if maps.ndim != 4 or maps.shape[1] != self.card.channels:
            names = ", ".join((*self.card.maps, *self.card.class_maps))
            with torch.inference_mode():
                given = described(network.raw(batch))
            raise ModelError(
                f"{self._path}: gives {given} for a patch of {size} px; the card names "
                f"{self.card.channels} channels ({names}): choose them with [[outputs]]"
            )
        result: NDArray[np.float32] = maps[0].float().numpy()
        return result

    def find_crop(self, image: NDArray[np.uint8]) -> None:
        """Find how many pixels are missing on every side of a patch's maps.

        Raises
        ------
        ModelError
            If the maps are of another size than a crop explains.
        """
        size = self.card.patch.size
        rows, cols = self.run(image, size, cropped=True).shape[1:]
        if rows != cols or rows > size or (size - rows) % 2:
            raise ModelError(
                f"{self._path}: gives maps of {rows} x {cols} px for a patch of {size} px; they may be smaller by the "
                "same number of pixels on every side, or by the factor `stride`"
            )
        self.crop = (size - rows) // 2
        larger = size + 2 * self._step(size)
        try:
            grown = self.run(image, larger, cropped=True).shape[1] if self.crop else larger
        except ModelError:  # it takes this size only
            return
        if self.crop and larger - grown != size - rows:
            raise ModelError(
                f"{self._path}: gives maps of {rows} px for a patch of {size} px, and of {grown} px for one of "
                f"{larger} px: where it gives one of every {size / rows:g} pixels, write stride = {size // rows} at "
                "the top of the card"
            )

    def grows(self, image: NDArray[np.uint8], size: int) -> bool:
        """Return whether the network takes a larger patch, too."""
        try:
            self.run(image, size + 2 * self._step(size))
        except ModelError:
            return False
        return True

    def _step(self, size: int) -> int:
        multiple = self.card.patch.multiple
        return max(size // 4 // multiple, 1) * multiple

    def reach(self, image: NDArray[np.uint8], size: int) -> int:
        """Return how far from a patch's edge the maps differ from those of a larger patch."""
        step = self._step(size)
        try:
            large = self.run(image, size + 2 * step)[:, step:-step, step:-step]
        except ModelError as error:
            raise ModelError(f"{self._path}: takes patches of {size} px only, so give patch.margin") from error
        small = self.run(image, size)
        span = np.maximum(np.ptp(large, axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
        wrong = (np.abs(large - small) > MARGIN_TOLERANCE * span).any(axis=0)
        rows, cols = np.indices(wrong.shape)
        away = np.minimum(np.minimum(rows, cols), np.minimum(size - 1 - rows, size - 1 - cols))
        return int(away[wrong].max(initial=-1)) + 1

    def speed(self, image: NDArray[np.uint8], size: int) -> float:
        """Return million pixels a second."""
        started = time.perf_counter()
        for _ in range(_TIMED):
            self.run(image, size)
        return _TIMED * size * size / 1e6 / (time.perf_counter() - started)

    def takes_parts(
        self, packed: torch.nn.Module, image: NDArray[np.uint8], maps: NDArray[np.float32], patch: PatchShape
    ) -> bool:
        """Return whether a smaller patch, not a square, has the same maps in its middle as the whole patch (`maps`)."""
        import torch

        step = -(-PART_STEP // patch.multiple) * patch.multiple
        height, width = 2 * patch.margin + step, 2 * patch.margin + 2 * step
        if step + width > patch.size:
            return False
        top, left = ((extent - patch.size) // 2 + step for extent in image.shape[:2])
        part = torch.from_numpy(np.ascontiguousarray(image[None, top : top + height, left : left + width]))
        try:
            with torch.inference_mode():
                found = packed(part.permute(0, 3, 1, 2))[0].float().numpy()
        except (*_FAILURES, torch.jit.Error, ModelError):  # it was made for one shape
            return False
        rows, cols = (slice(patch.margin, extent - patch.margin) for extent in (height, width))
        whole = maps[:, step : step + height, step : step + width]
        if found.shape != whole.shape:
            return False
        span = np.maximum(np.ptp(maps, axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
        return bool((np.abs(found - whole)[:, rows, cols] <= MARGIN_TOLERANCE * span).all())

    def traced(self) -> torch.jit.ScriptModule:
        """Return the network with what its card asks for around it, as TorchScript."""
        import torch

        from nuclix.engine.inference.model_file import torchscript_warnings

        size = self.card.patch.size
        with torch.inference_mode(), torchscript_warnings():
            example = torch.zeros(1, 3, size, size, dtype=torch.uint8)
            module: torch.jit.ScriptModule = torch.jit.trace(self.network(self.crop), example, check_trace=False)
        return module
