"""Everything that a training needs to go on after a kill, in one checkpoint file."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DataError

if TYPE_CHECKING:
    import torch

FORMAT = 1


@dataclass(slots=True)
class TrainingState:
    """Where a training stands.

    Attributes
    ----------
    step : int
        Batches done.
    seconds : float
        Time spent so far, all runs together.
    network, average : torch.nn.Module
        The network, and the exponential moving average of its weights.
    optimizer : torch.optim.Optimizer
        With its moments.
    scaler : torch.amp.GradScaler
        Loss scaling; does nothing but in float16.
    """

    step: int
    seconds: float
    network: torch.nn.Module
    average: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the checkpoint to a temporary name, then put it in place, so that a kill leaves the old or the new."""
        import torch

        content = {
            "format": FORMAT,
            "settings": settings,
            "step": self.step,
            "seconds": self.seconds,
            **{name: getattr(self, name).state_dict() for name in _PARTS},
        }
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        """Take up the checkpoint at `path`.

        Raises
        ------
        DataError
            If it can't be read, or was made with other settings; the message says which.
        """
        content = _read(path)
        before = content["settings"]
        differing = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
        if differing:
            changes = ", ".join(f"{key} {before.get(key)} -> {settings.get(key)}" for key in differing)
            raise DataError(f"{path}: was trained with other settings ({changes}); resume with the same")
        self.step, self.seconds = content["step"], content["seconds"]
        for name in _PARTS:
            getattr(self, name).load_state_dict(content[name])


def load_average(network: torch.nn.Module, path: Path) -> None:
    """Give a network the averaged weights of the checkpoint at `path`; raise `DataError` where they do not fit."""
    try:
        network.load_state_dict(_read(path)["average"])
    except (RuntimeError, KeyError) as problem:
        raise DataError(f"{path}: holds the weights of another network: {problem}") from problem


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as problem:
        raise DataError(f"{path}: not a checkpoint of a training: {problem}") from problem
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not a checkpoint that this version can take up")
    return content


_PARTS = ("network", "average", "optimizer", "scaler")
