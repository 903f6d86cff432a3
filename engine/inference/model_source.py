"""Where networks come from besides TorchScript in PyTorch: the plugin contract and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from nuclix.engine import registry
from nuclix.engine.errors import ModelError
from nuclix.engine.model_card import ModelCard

if TYPE_CHECKING:
    import torch

AUTO = "auto"
TORCH = "torch"


@runtime_checkable
class ModelSource(Protocol):
    """Loads networks. Entry-point group ``nuclix.model_sources``.

    The libraries that it needs are imported by `load` alone; a missing one is a `ModelError` that says what to install.
    """

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return from the file's content whether it is of a format that only this source loads; never raise."""
        ...

    @classmethod
    def card_text(cls, path: Path) -> bytes | None:
        """Return the card (JSON) inside a file that it recognises, or None where it holds none."""
        ...

    @classmethod
    def with_card(cls, content: bytes, card: bytes) -> bytes:
        """Return a file of its format with a card (JSON) inside; a `ModelError` where the format can't hold one."""
        ...

    @classmethod
    def load(cls, path: Path, card: ModelCard, device: str, *, trust: bool = False) -> Callable[[torch.Tensor], Any]:
        """Return what computes a batch: a tensor of the card's input format to a tensor, tuple or dictionary.

        With `trust`, a program in the file is not checked before it is loaded.
        """
        ...


def source_of(path: Path) -> type[ModelSource] | None:
    """Return the source that recognises a file, or None: TorchScript, as far as anyone knows."""
    for name in registry.names(registry.MODEL_SOURCES):
        source = cast(type[ModelSource], registry.load(registry.MODEL_SOURCES, name))
        if source.recognises(path):
            return source
    return None


def choose_source(path: Path, runtime: str) -> type[ModelSource] | None:
    """Return the source that a run asks for, or None for TorchScript in PyTorch.

    Parameters
    ----------
    path : Path
        The model file.
    runtime : str
        auto (by the file), torch, or the name of a source.

    Raises
    ------
    ModelError
        If the file is not TorchScript and another runtime than its own is asked for.
    """
    own = source_of(path)
    if runtime == AUTO:
        return own
    asked = None if runtime == TORCH else cast(type[ModelSource], registry.load(registry.MODEL_SOURCES, runtime))
    if own is not None and asked is not own:
        raise ModelError(f"{path}: is not TorchScript, so --runtime {runtime} can't run it; leave the option out")
    return asked
