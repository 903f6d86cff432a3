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
from nuclix.plugins.recipes._auxiliary import Auxiliary
from nuclix.plugins.recipes._formulations import FORMULATIONS, Formulation

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.unet import UNetShape


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
    mpp : float
        Micrometres per pixel of the images; 0.25 is 40x.
    formulation : str
        What is regressed (section IV-C.2): the "raw" distance by f_1, which is DIST; the distance "normalised" by
        each nucleus' largest, by f_1; or the same by "softmax" of f_2.
    auxiliary : float
        Weight of two more outputs that exist during training only: nucleus, and border. 0 leaves them out, as the
        paper does.
    border : int
        How far the auxiliary border reaches to each side of an outline, in px.
    centre : float
        Weight of the loss of two further such outputs: HoVer-Net's horizontal and vertical distances from a nucleus'
        centre. 0 leaves them out.
    root : bool
        Compare square roots of distances, so that the few large nuclei, whose depth is hardest to tell, do not outweigh
        the many small ones; False is eq. 3. The map is the distance in either case.
    n_feat_inner : int
        Features after the first pooling, doubled by each further one; 0 doubles `n_feat`, as the paper does.
    """

    maps: ClassVar[tuple[str, ...]] = ("distance",)
    postprocessor: ClassVar[str] = "dist"

    n_feat: int = 32
    depth: int = 3
    stem: int = 2
    mpp: float = 0.25
    formulation: str = "raw"
    auxiliary: float = 0.0
    root: bool = False
    border: int = 1
    n_feat_inner: int = 0
    centre: float = 0.0

    def __post_init__(self) -> None:
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be one of 1 and 2, not {self.stem}")
        if min(self.n_feat, self.depth) < 1:
            raise ValueError(f"n_feat and depth must be positive, not {self.n_feat} and {self.depth}")
        if self.formulation not in FORMULATIONS:
            raise ValueError(f"formulation must be one of {', '.join(FORMULATIONS)}, not {self.formulation}")
        if min(self.auxiliary, self.centre) < 0:
            raise ValueError(f"auxiliary and centre must be 0 or more, not {self.auxiliary} and {self.centre}")
        if self.border < 1:
            raise ValueError(f"border must be at least 1 px, not {self.border}")

    @property
    def _formulation(self) -> Formulation:
        return FORMULATIONS[self.formulation]

    @property
    def _auxiliary(self) -> Auxiliary:
        return Auxiliary(self.auxiliary, self.border, self.centre)

    @property
    def _shape(self) -> UNetShape:
        from nuclix.engine.training.unet import UNetShape

        outputs = self._formulation.outputs + self._auxiliary.outputs
        return UNetShape(self.n_feat, self.depth, self.stem, outputs, self.n_feat_inner)

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
        """Return a fresh U-Net: f_1 of section IV-C, or f_2."""
        from nuclix.engine.training.unet import UNet

        return UNet(self._shape)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the distance map (section IV-C.2): (1, H, W), in pixels (B_D), or in 0..1 if normalised (B_{D,N}).

        Parameters
        ----------
        labels : (H, W) int32
            Label image.

        Returns
        -------
        (1, H, W) float32
            Chessboard distance; other nuclei count as outside, the image's edge does not.
        """
        targets = self._formulation.targets(labels)
        return np.concatenate([targets, self._auxiliary.targets(labels)]) if self._auxiliary.outputs else targets

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the mean squared error, eq. 3, with what `root`, `auxiliary` and `centre` say."""
        main = self._formulation.loss(self.root)
        if not self._auxiliary.outputs:
            return main
        return lambda outputs, targets: self._auxiliary.loss(outputs, targets, main)

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, the distance map out, none below 0."""
        from nuclix.engine.training.unet import Exported

        if self._auxiliary.outputs:
            network = self._auxiliary.removed(network, self._formulation.outputs)
        return Exported(network, self._formulation.activation())

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the grid over p1 and p2 of Table I, p2 wider on both sides, with and without tiny nuclei.

        The first is what a training is scored with while it runs. Normalised maps have a grid of their own, in 0..1.
        """
        return self._formulation.candidates()
