"""Everything that a training needs to go on after a kill, in one checkpoint file."""

from __future__ import annotations

import math
import pickle
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DataError
from nuclix.engine.training.augmentation import present_names

if TYPE_CHECKING:
    import torch

FORMAT = 2
EARLIER = (1,)  # formats whose averaged weights can still be read


@dataclass(slots=True)
class Best:
    """The averaged weights with the lowest validation loss so far.

    Attributes
    ----------
    network : torch.nn.Module
        With these weights.
    loss : float
        Theirs on the validation images.
    waited : int
        Validations since then.
    """

    network: torch.nn.Module
    loss: float = math.inf
    waited: int = 0

    @classmethod
    def of(cls, average: torch.nn.Module) -> Best:
        """Return a place for the best weights of `average`."""
        return cls(deepcopy(average))

    def look(self, loss: float, average: torch.nn.Module) -> None:
        """Take these weights if their validation loss is the lowest yet."""
        if loss < self.loss:
            self.network.load_state_dict(average.state_dict())
            self.loss, self.waited = loss, 0
        else:
            self.waited += 1


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
    best : Best
        The weights that early stopping keeps.
    """

    step: int
    seconds: float
    network: torch.nn.Module
    average: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: Best

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the checkpoint to a temporary name, then put it in place, so that a kill leaves the old or the new."""
        import torch

        content = {
            "format": FORMAT,
            "settings": settings,
            "step": self.step,
            "seconds": self.seconds,
            "best_loss": self.best.loss,
            "best_waited": self.best.waited,
            "best": self.best.network.state_dict(),
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
        if "augmentation" in before:
            before = {**before, "augmentation": present_names(before["augmentation"])}
        differing = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
        if differing:
            changes = ", ".join(f"{key} {before.get(key)} -> {settings.get(key)}" for key in differing)
            raise DataError(f"{path}: was trained with other settings ({changes}); resume with the same")
        self.step, self.seconds = content["step"], content["seconds"]
        for name in _PARTS:
            getattr(self, name).load_state_dict(content[name])
        self.best.loss, self.best.waited = content["best_loss"], content["best_waited"]
        self.best.network.load_state_dict(content["best"])


def load_average(network: torch.nn.Module, path: Path) -> None:
    """Give a network the averaged weights of the checkpoint at `path`; raise `DataError` where they do not fit.

    Outputs that the earlier network did not have keep their fresh weights.
    """
    own = network.state_dict()
    try:
        given = _read(path, (*EARLIER, FORMAT))["average"]
        network.load_state_dict({name: _grown(value, own.get(name)) for name, value in given.items()})
    except (RuntimeError, KeyError) as problem:
        raise DataError(f"{path}: holds the weights of another network: {problem}") from problem


def blended(network: torch.nn.Module, path: Path, share: float) -> torch.nn.Module:
    """Return a copy of a network whose weights are averaged with those of the checkpoint that it started from.

    What lies between the two is often better than either on images unlike the later training's (Wortsman et al.,
    "Robust fine-tuning of zero-shot models", CVPR 2022).

    Parameters
    ----------
    network : torch.nn.Module
        After the later training.
    path : Path
        Checkpoint of the earlier one.
    share : float
        Between 0 and 1: how much the earlier weights count.

    Raises
    ------
    DataError
        If the checkpoint can't be read or holds another network.
    """
    earlier = deepcopy(network)
    load_average(earlier, path)
    mixed = deepcopy(network)
    before = earlier.state_dict()
    for name, value in mixed.state_dict().items():
        if value.is_floating_point():
            value.lerp_(before[name], share)
    return mixed


def _grown(value: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
    """Return `value`, followed by the last rows of `own` if that is the longer of two that are alike otherwise."""
    import torch

    if own is None or own.ndim == 0 or own.shape[1:] != value.shape[1:] or len(own) <= len(value):
        return value
    return torch.cat([value, own[len(value) :]])


def _read(path: Path, formats: tuple[int, ...] = (FORMAT,)) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as problem:
        raise DataError(f"{path}: not a checkpoint of a training: {problem}") from problem
    if not isinstance(content, dict) or content.get("format") not in formats:
        raise DataError(f"{path}: not a checkpoint that this version can take up")
    return content


_PARTS = ("network", "average", "optimizer", "scaler")
