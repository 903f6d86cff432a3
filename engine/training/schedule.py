"""How long and how fast a network learns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nuclix.engine.training.augmentation import Augmentation

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
        AdamW's peak rate, reached after `warmup` steps.
    decay, decay_every : float, int
        The rate is multiplied by `decay` every so many steps; 0 is a cosine down to a hundredth at the last step.
    min_learning_rate : float
        The rate does not fall below it after the warm-up.
    freeze_encoder : int
        For so many steps from the first the encoder keeps its weights and statistics: for encoders that begin with
        weights of another task, which the random decoder would spoil. The network says what its encoder is.
    weight_decay : float
        Decoupled weight decay (lambda of eq. 1 of the DIST paper, as AdamW has it).
    early_stopping : int
        Stop when the validation loss has not fallen for so many validations, and keep the weights of the lowest
        (DIST paper, section VI-D: a view of 10 epochs); 0 trains to the last step and keeps the last weights.
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
    decay: float = 0.0
    decay_every: int = 1000
    min_learning_rate: float = 0.0
    freeze_encoder: int = 0
    weight_decay: float = 0.01
    warmup: int = 300
    early_stopping: int = 0
    average: float = 0.999
    clip: float = 50.0
    seed: int = 0
    precision: str = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "decay_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("warmup", "early_stopping", "seed", "min_learning_rate", "freeze_encoder"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be in 0..1, not {self.decay}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be 0 or more and less than 1, not {self.average}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be a positive number, not {self.learning_rate}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be 0 or more, not {self.weight_decay}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return max(self.min_learning_rate, self._fallen(step))

    def _fallen(self, step: int) -> float:
        """Return the rate of a step after the warm-up, before its lower bound."""
        if self.decay > 0:
            return self.learning_rate * float(self.decay ** (step // self.decay_every))
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)
