"""DIST: a U-Net that regresses the chessboard distance to the nucleus' border.

Naylor, Laé, Reyal, Walter: "Segmentation of nuclei in histopathology images by deep regression of the distance
map", IEEE Transactions on Medical Imaging 38 (2019), sections IV and VI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale

if TYPE_CHECKING:
    import torch

    from nuclix.engine.networks import UNetShape

PATCH_PX = 1024
P1_CANDIDATES = tuple(round(0.2 * step, 1) for step in range(11))  # Table I: p1 in [0:2]
P2_CANDIDATES = tuple(round(0.1 * step, 1) for step in range(4, 13))  # Table I has 0.5..1.0
AREA_CANDIDATES = (0, 40)  # px; 40 are 2.5 um^2
USUAL = {"p1": 1.0, "p2": 0.7, "min_area": 0}


@dataclass(frozen=True, slots=True)
class DistRecipe:
    """How DIST is trained.

    Attributes
    ----------
    n_feat : int
        Features of the first convolution (section IV-A).
    depth : int
        Poolings; 4 in the paper.
    stem : int
        1 for the paper's U-Net; 2 works at half the resolution (see `UNetShape`).
    um_per_px : float
        Micrometres per pixel of the images; 0.25 is 40x.
    """

    maps: ClassVar[tuple[str, ...]] = ("distance",)
    postprocessor: ClassVar[str] = "dist"

    n_feat: int = 32
    depth: int = 3
    stem: int = 2
    um_per_px: float = 0.25

    def __post_init__(self) -> None:
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be one of 1 and 2, not {self.stem}")
        if min(self.n_feat, self.depth) < 1:
            raise ValueError(f"n_feat and depth must be positive, not {self.n_feat} and {self.depth}")

    @property
    def _shape(self) -> UNetShape:
        from nuclix.engine.networks import UNetShape

        return UNetShape(self.n_feat, self.depth, self.stem, len(self.maps))

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.um_per_px)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is the network's reach."""
        shape = self._shape
        size = max(PATCH_PX, 4 * shape.margin)
        return PatchShape(-(-size // shape.multiple) * shape.multiple, shape.margin, shape.multiple)

    def network(self) -> torch.nn.Module:
        """Return a fresh U-Net with one output, f_1 of section IV-C."""
        from nuclix.engine.networks import UNet

        return UNet(self._shape)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the raw distance map B_D (section IV-C.2): (1, H, W) pixels to the nearest pixel outside the nucleus.

        Parameters
        ----------
        labels : (H, W) int32
            Label image.

        Returns
        -------
        (1, H, W) float32
            Chessboard distance; other nuclei count as outside, the image's edge does not.
        """
        from nuclix.ext.distance import instance_distance

        # An image that is one nucleus from edge to edge has no pixel outside it: its distances are the image's size.
        return np.minimum(instance_distance(labels), max(labels.shape)).astype(np.float32)[None]

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the mean squared error, eq. 3."""
        from torch.nn.functional import mse_loss

        return mse_loss

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, distances in pixels out, none below 0."""
        from torch.nn import ReLU

        from nuclix.engine.networks import Exported

        return Exported(network, ReLU())

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the grid over p1 and p2 of Table I, p2 a step wider on both sides, with and without tiny nuclei.

        The first is what a training is scored with while it runs.
        """
        grid = [
            {"p1": p1, "p2": p2, "min_area": area}
            for p2 in P2_CANDIDATES
            for p1 in P1_CANDIDATES
            for area in AREA_CANDIDATES
        ]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL)]
