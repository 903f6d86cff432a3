"""What computes a network on the CPU besides PyTorch: the contract, and the choice that ``--runtime auto`` makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.inference.device import is_cpu
from nuclix.engine.inference.embedded import NetworkFiles
from nuclix.engine.inference.model_source import AUTO, TORCH, choose_source, source_of
from nuclix.engine.model_card import ModelCard


@dataclass(frozen=True, slots=True)
class ArraySettings:
    """How a network is run by an `ArrayRuntime`.

    Attributes
    ----------
    precision : str
        float32, bfloat16 or int8.
    threads : int
        Of the CPU.
    batch : int
        Patches at a time.
    tta : bool
        Average the maps of four mirror images.
    trust : bool
        Open the network without checking that it only computes.
    """

    precision: str
    threads: int
    batch: int = 1
    tta: bool = False
    trust: bool = False


class PatchQueue(Protocol):
    """A network that is ready to compute patches.

    Attributes
    ----------
    runtime : str
        Name and version of what computes.
    places : int
        Patches that are computed at the same time.
    """

    runtime: str
    places: int

    def submit(self, patch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Start to compute an (H, W, 3) patch; return what waits for its (channels, H, W) maps.

        H and W are the card's patch size, or less if that is dynamic.

        Raises
        ------
        RuntimeError
            If the network fails, here or from the callable.
        """
        ...


@runtime_checkable
class ArrayRuntime(Protocol):
    """A model source that computes without PyTorch on the CPU. Entry-point group ``nuclix.model_sources``."""

    @classmethod
    def preload(cls) -> None:
        """Import what takes long, so that it is there when a network is opened."""
        ...

    @classmethod
    def suits(cls, card: ModelCard, precision: str) -> bool:
        """Return whether this runtime is installed and the model file holds what it needs, in this precision."""
        ...

    @classmethod
    def precision(cls, wanted: str) -> str:
        """Return the number format for ``--precision``; a `UsageError` for one that it does not have."""
        ...

    @classmethod
    def pack(cls, path: Path, card: ModelCard, calibration: Sequence[NDArray[np.uint8]]) -> dict[str, NetworkFiles]:
        """Return the networks to put into a model file, by number format; int8 where there are patches to calibrate."""
        ...

    @classmethod
    def open(cls, path: Path, content: bytes, card: ModelCard, settings: ArraySettings) -> PatchQueue:
        """Return the network of a model file, ready to compute; a `ModelError` if that can't be done."""
        ...


def resolve_runtime(path: Path, runtime: str, device: str, precision: str) -> str:
    """Return the runtime that computes a model file: of ``auto``, the first that suits file, device and precision.

    Parameters
    ----------
    path : Path
        The model file.
    runtime, device, precision : str
        As the options name them.

    Returns
    -------
    str
        The name of a model source, or ``torch``.

    Raises
    ------
    ModelError, PluginError
        As `choose_source`, or if the card can't be read.
    """
    from nuclix.engine.inference.model_file import read_card

    if runtime != AUTO:
        choose_source(path, runtime)
        return runtime
    own = source_of(path)
    plugins = registry.load_all(registry.MODEL_SOURCES)
    if own is not None:
        return next(name for name, source in plugins.items() if source is own)
    found = {name: source for name, source in plugins.items() if is_array_runtime(source)}
    if not found or not is_cpu(device):
        return TORCH
    card = read_card(path)
    suiting = (name for name, source in found.items() if cast(type[ArrayRuntime], source).suits(card, precision))
    return next(suiting, TORCH)


def is_array_runtime(source: object) -> bool:
    """Return whether a model source is an `ArrayRuntime`."""
    return isinstance(source, type) and issubclass(source, ArrayRuntime)


def array_runtime(name: str) -> type[ArrayRuntime] | None:
    """Return the runtime of a name, or None for PyTorch and for a source that PyTorch's predictor runs."""
    source = None if name in (AUTO, TORCH) else registry.load(registry.MODEL_SOURCES, name)
    return cast(type[ArrayRuntime], source) if is_array_runtime(source) else None


def preload(model: str, runtime: str, device: str, precision: str) -> None:
    """Import what computes the network, before it is known which run needs it."""
    from nuclix.engine.inference.model_file import find_model

    chosen = array_runtime(resolve_runtime(find_model(model), runtime, device, precision))
    if chosen is not None:
        chosen.preload()
    else:
        import torch  # noqa: F401


def usual_runtime(path: Path) -> str:
    """Return what computes a model file here where no option says otherwise: device, runtime, and number formats.

    Raises
    ------
    ModelError, PluginError
        As `resolve_runtime`.
    """
    from nuclix.engine.inference.embedded import network_names
    from nuclix.engine.inference.model_file import read_card

    name = resolve_runtime(path, AUTO, AUTO, AUTO)
    runtime = array_runtime(name)
    if runtime is None:
        return f"{name} on {'the CPU' if is_cpu(AUTO) else 'the GPU'}"
    others = [kind for kind in network_names(read_card(path), name) if kind != runtime.precision(AUTO)]
    more = f" (also: {', '.join(others)})" if others else ""
    return f"{name} on the CPU, {runtime.precision(AUTO)}{more}"
