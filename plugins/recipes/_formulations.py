"""What DIST's network may be asked to regress: the paper's formulation and the two that it rejects.

Naylor et al., "Segmentation of nuclei in histopathology images by deep regression of the distance map", IEEE TMI 38
(2019), section IV-C.2; section V compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

NUCLEUS = 1  # which of f_2's two outputs is the nucleus
AREA_CANDIDATES = (0, 40, 80, 120)  # px; 40 are 2.5 um^2
ROOT_FLOOR = 0.05  # px; keeps the root's slope finite at 0
ROOT_WEIGHT = 8.0  # 4 y times a squared error of roots is about the squared error: as large as eq. 3 for y of 2 px


def _root(distance: torch.Tensor) -> torch.Tensor:
    """Return the square root of distances, bent to a straight line below 0 so that every error has a slope."""
    above = distance.clamp(min=0)
    return (above + ROOT_FLOOR).sqrt() + (distance - above) / (2 * ROOT_FLOOR**0.5)


@dataclass(frozen=True, slots=True)
class Formulation:
    """One way to regress the distance map.

    Attributes
    ----------
    outputs : int
        k of f_k: how many raw outputs the network has for the one map.
    normalised : bool
        Distances are divided by the largest of their nucleus (B_{D,N} of section IV-C.2).
    p1, p2 : tuple of float
        The grid that validation chooses from, in the unit of the map.
    usual : tuple of float
        p1 and p2 that a training is scored with while it runs.
    """

    outputs: int
    normalised: bool
    p1: tuple[float, ...]
    p2: tuple[float, ...]
    usual: tuple[float, float]

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the (1, H, W) distance map of (H, W) labels: B_D in pixels, or B_{D,N} in 0..1.

        Chessboard distance to the nearest pixel outside the nucleus; other nuclei count as outside, the image's edge
        does not. The paper divides by the maximum of a connected component; with nuclei told apart, that is a nucleus.
        """
        from nuclix.ext.distance import instance_distance

        # An image that is one nucleus from edge to edge has no pixel outside it: its distances are the image's size.
        distance = np.minimum(instance_distance(labels), max(labels.shape)).astype(np.float32)
        if self.normalised:
            names, index = np.unique(labels, return_inverse=True)
            largest = np.ones(len(names), np.float32)
            np.maximum.at(largest, index.ravel(), distance.ravel())
            distance /= largest[index.reshape(labels.shape)]
        return distance[None]

    def map_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the (N, 1, H, W) map of raw (N, outputs, H, W): f_1 as it is, of f_2 the nucleus' softmax."""
        return outputs if self.outputs == 1 else outputs.softmax(1)[:, NUCLEUS : NUCLEUS + 1]

    def loss(self, root: bool = False) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the mean squared error of the map, eq. 3, or that of its square root."""
        from torch.nn.functional import mse_loss

        if not root:
            return lambda outputs, targets: mse_loss(self.map_of(outputs), targets)
        return lambda outputs, targets: ROOT_WEIGHT * mse_loss(_root(self.map_of(outputs)), _root(targets))

    def activation(self) -> torch.nn.Module:
        """Return what makes the exported map: none below 0."""
        from torch.nn import ReLU

        from nuclix.engine.training.unet import ClassProbability

        return ReLU() if self.outputs == 1 else ClassProbability(NUCLEUS)

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the grid over p1, p2 and the smallest area, the usual parameters first."""
        usual = {"p1": self.usual[0], "p2": self.usual[1], "min_area": AREA_CANDIDATES[0]}
        grid = [{"p1": p1, "p2": p2, "min_area": area} for p2 in self.p2 for p1 in self.p1 for area in AREA_CANDIDATES]
        return [usual, *(candidate for candidate in grid if candidate != usual)]


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(round(first + step * index, 2) for index in range(round((last - first) / step) + 1))


_PX_P1, _PX_P2 = _steps(0, 2, 0.2), _steps(0.2, 1.2, 0.1)  # Table I: p1 in 0..2, p2 in 0.5..1.0; p2 is wider here
_SHARE_P1, _SHARE_P2 = _steps(0, 0.5, 0.05), _steps(0.05, 0.75, 0.05)  # normalised maps: shares of a nucleus' depth

FORMULATIONS: Mapping[str, Formulation] = {
    "raw": Formulation(1, False, _PX_P1, _PX_P2, (1.0, 0.7)),
    "normalised": Formulation(1, True, _SHARE_P1, _SHARE_P2, (0.2, 0.2)),
    "softmax": Formulation(2, True, _SHARE_P1, _SHARE_P2, (0.2, 0.2)),
}
