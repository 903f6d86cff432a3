"""HoVer-Net's maps from the narrow U-Net that the other recipes share.

Graham et al.: "HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue histology images",
Medical Image Analysis 58, 2019. The paper's network has a residual encoder of 50 layers and a decoder for each branch;
here one U-Net gives all three maps, so that maps can be compared at the same width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale
from nuclix.plugins.recipes._centre_distances import centre_distances

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.unet import UNetShape

SMOOTH = 1e-3  # added to both sides of the Dice fraction, as in the authors' program
THRESHOLD_CANDIDATES = (0.3, 0.4, 0.5, 0.6)
ENERGY_CANDIDATES = (0.3, 0.4, 0.5)
AREA_CANDIDATES = (10, 30)  # px
USUAL = {"threshold": 0.5, "energy": 0.4, "min_area": 10}


@dataclass(frozen=True, slots=True)
class HoVerNetRecipe:
    """How the network is trained.

    Attributes
    ----------
    n_feat : int
        Features of the first convolution.
    depth : int
        Poolings.
    stem : int
        1: full resolution; 2: works at half the resolution (see `UNetShape`).
    slope_weight : float
        Weight of the error of slopes in the loss (2 in the paper).
    mpp : float
        Micrometres per pixel of the images; 0.25 is 40x.
    """

    maps: ClassVar[tuple[str, ...]] = ("nucleus", "horizontal", "vertical")
    postprocessor: ClassVar[str] = "hovernet"

    n_feat: int = 32
    depth: int = 3
    stem: int = 2
    slope_weight: float = 2.0
    mpp: float = 0.25

    def __post_init__(self) -> None:
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be one of 1 and 2, not {self.stem}")
        if min(self.n_feat, self.depth) < 1:
            raise ValueError(f"n_feat and depth must be positive, not {self.n_feat} and {self.depth}")
        if self.slope_weight < 0:
            raise ValueError(f"slope_weight must be 0 or more, not {self.slope_weight}")

    @property
    def _shape(self) -> UNetShape:
        from nuclix.engine.training.unet import UNetShape

        return UNetShape(self.n_feat, self.depth, self.stem, len(self.maps))

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is the network's reach."""
        shape = self._shape
        return PatchShape.around(shape.radius, shape.multiple)

    def network(self) -> torch.nn.Module:
        """Return a fresh U-Net of three outputs."""
        from nuclix.engine.training.unet import UNet

        return UNet(self._shape)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the targets of section 3.1.

        Parameters
        ----------
        labels : (H, W) int32
            Label image.

        Returns
        -------
        (3, H, W) float32
            1 in nuclei; the distances of a nucleus' pixels from its centre of mass along rows (positive to the
            right) and columns (positive downwards), each side scaled to end at -1 or 1; 0 outside.
        """
        return np.concatenate([(labels > 0).astype(np.float32)[None], centre_distances(labels)])

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the loss of section 3.1: squared errors of distances and of their slopes, cross-entropy and Dice."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        from nuclix.plugins.recipes._hovernet_network import centre_loss

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            nuclei = targets[:, :1]
            found = outputs[:, :1].sigmoid()
            dice = 1 - (2 * (found * nuclei).sum() + SMOOTH) / (found.sum() + nuclei.sum() + SMOOTH)
            pixels = binary_cross_entropy_with_logits(outputs[:, :1], nuclei)
            return centre_loss(outputs[:, 1:], targets[:, 1:], nuclei, self.slope_weight) + pixels + dice

        return loss

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, the nucleus probability and the two distances out."""
        from nuclix.engine.training.unet import Exported
        from nuclix.plugins.recipes._hovernet_network import Maps

        return Exported(network, Maps())

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the parameters among which validation chooses; the first scores a training while it runs."""
        grid = [
            {"threshold": threshold, "energy": energy, "min_area": area}
            for threshold in THRESHOLD_CANDIDATES
            for energy in ENERGY_CANDIDATES
            for area in AREA_CANDIDATES
        ]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL)]
