"""What a post-processor may say of each nucleus besides where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """Nuclei with what is known of each.

    Attributes
    ----------
    labels : (H, W) int32
        As `PostProcessor.split` returns them: 1..N without gaps.
    scores : (N,) float or None
        Detection probability of each label, 0..1; None where the mean of the score map is meant.
    classes : (N,) int or None
        Index of each label's class in the model's classes; None where all are of the first.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.floating[Any]] | None = None
    classes: NDArray[np.integer[Any]] | None = None


@runtime_checkable
class DetectsObjects(Protocol):
    """A post-processor that gives each nucleus a score or a class, by the rule that `PostProcessor` states."""

    def detect(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> Detections:
        """Return what `split` returns, with scores or classes; it is called instead."""
        ...


@runtime_checkable
class ScoresObjects(Protocol):
    """A post-processor that may score each nucleus as a whole, in place of the mean of its score map."""

    def object_scores(self, maps: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.floating[Any]] | None:
        """Return the (N,) scores, 0..1, of the nuclei that `split` labelled 1..N; None leaves the mean."""
        ...
