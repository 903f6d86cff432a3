"""The training loop, the same for every recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import UsageError
from nuclix.engine.parameters import as_mapping
from nuclix.engine.training.contracts import BatchShape, BatchSource, CustomLoss, CustomSampler
from nuclix.engine.training.dataset import Dataset
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.log import Progress, TrainingLog
from nuclix.engine.training.pretrained import load_encoder
from nuclix.engine.training.sampler import Sampler, drawn_ahead, loaded
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.state import Best, TrainingState
from nuclix.engine.training.validation import Validation, validate
from nuclix.engine.training.warm_start import initialise

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Recipe

CHECKPOINT = "checkpoint.pt"
LOG = "training.csv"
LOSS_EVERY = 50  # steps between two looks at the loss: reading it makes a GPU wait
BATCHES_AHEAD = 3  # drawn by a thread while a GPU learns; on a CPU a thread would only take its cores


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
        An earlier run's checkpoint, whose averaged weights are the first weights, or a model file.
    encoder_weights : Path, optional
        State dict of a network trained elsewhere, for the encoder alone (see `nuclix.engine.training.pretrained`).
    num_workers : int
        Processes that draw batches ahead; 0 draws them here. Batches are the same.
    """

    folder: Path
    device: str = "auto"
    resume: bool = False
    validate_every: int = 1000
    checkpoint_seconds: float = 120.0
    start: Path | None = None
    encoder_weights: Path | None = None
    num_workers: int = 0


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
        At the last step, on the CPU; `kept` says which of its networks to use.

    Raises
    ------
    UsageError, DataError
        If the device is not there, or a checkpoint is in the way or does not fit.
    """
    if schedule.patch % recipe.patch.multiple:
        raise UsageError(f"patch {schedule.patch}: this network takes multiples of {recipe.patch.multiple}")
    if schedule.early_stopping > 0 and not dataset.validation:
        raise UsageError("early stopping needs validation images: hold some out, or train for a fixed number of steps")
    execution = Execution.of(place.device, schedule.precision)
    place.folder.mkdir(parents=True, exist_ok=True)
    source = _source(recipe, dataset, schedule)
    state = _begin(recipe, schedule, place, execution, source)
    settings = {**as_mapping(schedule), "recipe": repr(recipe), "start": place.start and place.start.name}
    settings["encoder weights"] = place.encoder_weights and place.encoder_weights.name
    checkpoint, log = place.folder / CHECKPOINT, TrainingLog(place.folder / LOG)
    if checkpoint.exists():
        if not place.resume:
            raise UsageError(f"{checkpoint}: an earlier training; --resume goes on with it, or choose another --out")
        state.load(checkpoint, settings)
    log.open(state.step)
    ahead = BATCHES_AHEAD if execution.device.type == "cuda" else 0
    clock, losses = _Clock(state.seconds), _Losses()
    learn = _learner(recipe, state, schedule, execution)
    steps = _steps_left(state, schedule)
    batches = loaded(source, steps, place.num_workers) if place.num_workers else drawn_ahead(source, steps, ahead)
    for images, targets in batches:
        losses.add(learn(images, targets))
        state.step, state.seconds = state.step + 1, clock.seconds()
        last = state.step == schedule.steps
        validated = last or state.step % place.validate_every == 0
        if not validated and state.step % LOSS_EVERY:
            continue
        found = _validated(recipe, state, dataset, execution) if validated else None
        if found is not None:
            state.best.look(found.loss, state.average)
            last = last or 0 < schedule.early_stopping <= state.best.waited
        progress = Progress(state.step, schedule.steps, losses.mean(), found)
        log.row(progress, state.seconds, schedule.rate(state.step - 1))
        report(progress)
        if last or clock.due(place.checkpoint_seconds):
            state.save(checkpoint, settings)
        if last:
            break
    for module in (state.network, state.average, state.best.network):
        module.cpu()
    return state


def kept(state: TrainingState, schedule: Schedule) -> torch.nn.Module:
    """Return the weights to use: the last average, or with early stopping the one of the lowest validation loss."""
    return state.best.network if schedule.early_stopping > 0 else state.average


def _steps_left(state: TrainingState, schedule: Schedule) -> range:
    stopped = 0 < schedule.early_stopping <= state.best.waited
    return range(state.step, state.step if stopped else schedule.steps)


def _validated(recipe: Recipe, state: TrainingState, dataset: Dataset, execution: Execution) -> Validation | None:
    """Return the scores of the averaged weights; None where no image is held out."""
    return validate(recipe, state.average, dataset.validation, execution) if dataset.validation else None


def _source(recipe: Recipe, dataset: Dataset, schedule: Schedule) -> BatchSource:
    """Return where batches come from: the recipe's own source, or random patches of the annotated images."""
    shape = BatchShape(schedule.batch, schedule.patch)
    images = (*dataset.train, *dataset.extra)
    if isinstance(recipe, CustomSampler):
        return recipe.batches(images, shape, schedule.seed)
    return Sampler(recipe, images, schedule.augmentation, shape, schedule.seed, dataset.weights)


def _begin(
    recipe: Recipe, schedule: Schedule, place: Place, execution: Execution, source: BatchSource
) -> TrainingState:
    """Return the state before the first step: weights from the seed or from an earlier training."""
    import torch

    from nuclix.engine.training.unet import normalise

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        network = recipe.network()
    if place.start is not None:
        initialise(network, place.start, lambda: normalise(source.batch(0)[0]))
    if place.encoder_weights is not None:
        load_encoder(_encoder(network, "--encoder-weights"), place.encoder_weights)
    network = execution.place_module(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    average = deepcopy(network).eval().requires_grad_(False)
    return TrainingState(0, 0.0, network, average, optimizer, execution.scaler(), Best.of(average))


def _learner(
    recipe: Recipe, state: TrainingState, schedule: Schedule, execution: Execution
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the function that learns from one batch and returns its loss, still on the device."""
    import torch

    from nuclix.engine.training.unet import normalise

    objective = recipe.objective() if isinstance(recipe, CustomLoss) else _usual_objective(recipe)
    encoder = _encoder(state.network, "--freeze-encoder") if schedule.freeze_encoder else None

    def learn(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.rate(state.step)
        state.network.train()
        if encoder is not None:
            _freeze(encoder, state.step < schedule.freeze_encoder)
        with execution.autocast():
            loss = objective(state.network, normalise(execution.place(images)), execution.place(targets))
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), schedule.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        _follow(state.average, state.network, min(schedule.average, (1 + state.step) / (10 + state.step)))
        return loss.detach()

    return learn


def _encoder(network: torch.nn.Module, option: str) -> torch.nn.Module:
    """Return the network's encoder; raise `UsageError` where it has none."""
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UsageError(f"{option}: this recipe's network has no encoder")
    found: torch.nn.Module = encoder
    return found


def _freeze(encoder: torch.nn.Module, frozen: bool) -> None:
    """Keep an encoder's weights and batch-norm statistics as they are, or let them learn again."""
    encoder.requires_grad_(not frozen)
    encoder.train(not frozen)


def _usual_objective(recipe: Recipe) -> Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the recipe's loss of the network's outputs, computed in float32."""
    import torch

    criterion = recipe.loss()

    def objective(network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs = network(images)
        with torch.autocast(outputs.device.type, enabled=False):
            return criterion(outputs.float(), targets)

    return objective


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
        """Return whether a checkpoint is due, and record that it is made."""
        if time.monotonic() - self._saved < every:
            return False
        self._saved = time.monotonic()
        return True
