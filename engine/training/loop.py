"""The training loop, the same for every recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import UsageError
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.augmentation import Augmentation
from nuclix.engine.training.dataset import Dataset
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.log import Progress, TrainingLog
from nuclix.engine.training.sampler import BatchShape, Sampler, drawn_ahead
from nuclix.engine.training.state import TrainingState, load_average
from nuclix.engine.training.validation import validate

if TYPE_CHECKING:
    import torch

    from nuclix.engine.contracts import Recipe

CHECKPOINT = "checkpoint.pt"
LOG = "training.csv"
LOSS_EVERY = 50  # steps between two looks at the loss: reading it makes a GPU wait
BATCHES_AHEAD = 3  # drawn by a thread while a GPU learns; on a CPU a thread would only take its cores
FINAL_RATE = 0.01  # of the learning rate, where the cosine ends


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a network is trained.

    Attributes
    ----------
    steps : int
        Batches in all.
    batch, patch : int
        Patches a batch and their edge in pixels.
    learning_rate : float
        AdamW's peak rate, reached after `warmup` steps, then a cosine down to a hundredth.
    weight_decay : float
        Decoupled weight decay (lambda of eq. 1 of the DIST paper, as AdamW has it).
    average : float
        Decay of the moving average of the weights, which is what gets validated and exported.
    clip : float
        Largest gradient norm.
    seed : int
        Of the first weights and of every batch.
    precision : str
        float32, bfloat16, float16, or auto: what the device is fast in.
    augmentation : Augmentation
        How patches are varied.
    """

    steps: int = 20000
    batch: int = 8
    patch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 300
    average: float = 0.999
    clip: float = 50.0
    seed: int = 0
    precision: str = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs and when it writes.

    Attributes
    ----------
    folder : Path
        Takes the checkpoint and the log.
    device : str
        auto, cpu or cuda.
    resume : bool
        Go on from the folder's checkpoint if it has one.
    validate_every : int
        Steps between validations.
    checkpoint_seconds : float
        Time between checkpoints.
    start : Path, optional
        An earlier training's checkpoint, whose averaged weights are the first weights.
    """

    folder: Path
    device: str = "auto"
    resume: bool = False
    validate_every: int = 1000
    checkpoint_seconds: float = 120.0
    start: Path | None = None


def train(
    recipe: Recipe, dataset: Dataset, schedule: Schedule, place: Place, report: Callable[[Progress], None]
) -> TrainingState:
    """Train a recipe's network.

    Parameters
    ----------
    recipe : Recipe
        The method.
    dataset : Dataset
        Images to train on and images to validate on.
    schedule : Schedule
        How.
    place : Place
        Where to and on which device.
    report : callable
        Called every few steps.

    Returns
    -------
    TrainingState
        At the last step, on the CPU.

    Raises
    ------
    UsageError, DataError
        If the device is not there, or a checkpoint is in the way or does not fit.
    """
    if schedule.patch % recipe.patch.multiple:
        raise UsageError(f"patch {schedule.patch}: this network takes multiples of {recipe.patch.multiple}")
    execution = Execution.of(place.device, schedule.precision)
    place.folder.mkdir(parents=True, exist_ok=True)
    state = _begin(recipe, schedule, place, execution)
    settings = {**as_mapping(schedule), "recipe": repr(recipe), "start": place.start and place.start.name}
    checkpoint, log = place.folder / CHECKPOINT, TrainingLog(place.folder / LOG)
    if checkpoint.exists():
        if not place.resume:
            raise UsageError(f"{checkpoint}: an earlier training; --resume goes on with it, or choose another --out")
        state.load(checkpoint, settings)
    log.open(state.step)
    shape = BatchShape(schedule.batch, schedule.patch)
    sampler = Sampler(recipe, dataset.train, schedule.augmentation, shape, schedule.seed)
    ahead = BATCHES_AHEAD if execution.device.type == "cuda" else 0
    clock, losses = _Clock(state.seconds), _Losses()
    learn = _learner(recipe, state, schedule, execution)
    for images, targets in drawn_ahead(sampler, range(state.step, schedule.steps), ahead):
        losses.add(learn(images, targets))
        state.step, state.seconds = state.step + 1, clock.seconds()
        last = state.step == schedule.steps
        validated = last or state.step % place.validate_every == 0
        if not validated and state.step % LOSS_EVERY:
            continue
        found = validate(recipe, state.average, dataset.validation, execution) if validated else None
        progress = Progress(state.step, schedule.steps, losses.mean(), found)
        log.row(progress, state.seconds, schedule.rate(state.step - 1))
        report(progress)
        if last or clock.due(place.checkpoint_seconds):
            state.save(checkpoint, settings)
    state.network.cpu()
    state.average.cpu()
    return state


def _begin(recipe: Recipe, schedule: Schedule, place: Place, execution: Execution) -> TrainingState:
    """Return the state before the first step: weights from the seed or from an earlier training."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        network = recipe.network()
    if place.start is not None:
        load_average(network, place.start)
    network = execution.place_module(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    average = deepcopy(network).eval().requires_grad_(False)
    return TrainingState(0, 0.0, network, average, optimizer, execution.scaler())


def _learner(
    recipe: Recipe, state: TrainingState, schedule: Schedule, execution: Execution
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the function that learns from one batch and returns its loss, still on the device."""
    import torch

    from nuclix.engine.networks import normalise

    criterion = recipe.loss()

    def learn(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.rate(state.step)
        state.network.train()
        with execution.autocast():
            outputs = state.network(normalise(execution.place(images)))
        loss = criterion(outputs.float(), execution.place(targets))
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), schedule.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        _follow(state.average, state.network, min(schedule.average, (1 + state.step) / (10 + state.step)))
        return loss.detach()

    return learn


def _follow(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the average's weights and batch-norm statistics towards the network's."""
    import torch

    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


class _Losses:
    """Sums losses on their device, so that a GPU need not wait for each."""

    def __init__(self) -> None:
        self._values: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        self._values.append(loss)

    def mean(self) -> float:
        """Return the mean since the last call."""
        mean = sum(float(value) for value in self._values) / len(self._values)
        self._values = []
        return mean


class _Clock:
    """Time of this training, over all its runs."""

    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before
        self._saved = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def due(self, every: float) -> bool:
        """Say whether a checkpoint is due, and note that it is made."""
        if time.monotonic() - self._saved < every:
            return False
        self._saved = time.monotonic()
        return True
