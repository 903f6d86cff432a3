"""Pixel classification: the probability of lying in a nucleus, from one of four networks.

Naylor, Laé, Reyal, Walter: "Nuclei segmentation in histopathology images using deep neural networks", ISBI 2017 (of
which the draft is at hand), and the comparators of the same authors' DIST paper (IEEE TMI 2019, sections IV-B and VI).
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

    from nuclix.engine.training.unet import UNetShape

ARCHITECTURES = ("baochuan", "fcn8s", "deconvnet", "unet")
P1_CANDIDATES = (0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 16, 24, 32, 48, 64)  # grey levels; Table I has 6..12
AREA_CANDIDATES = (0, 40)  # px; 40 are 2.5 um^2
USUAL = {"split_touching": True, "p1": 10.0, "min_area": 0}  # p1: Table III has 10 for the FCN and 11 for the U-Net
BORDER_PX = 2  # how far around a pixel two nuclei must lie for it to be border
GAP_PX = 1  # the same for pixels that are to part them


@dataclass(frozen=True, slots=True)
class ProbabilityRecipe:
    """How a network learns to tell nucleus from background.

    Attributes
    ----------
    architecture : str
        baochuan, fcn8s, deconvnet or unet (draft, section 5).
    width : float
        Share of the full number of maps in FCN-8s and DeconvNet, whose full size takes a GPU.
    n_feat, depth, stem : int
        Size of the U-Net (see `UNetShape`); the paper's is depth 4, stem 1.
    border_weight : float
        The draft gives every pixel a weight w_ij and does not say which. 0 weighs all alike, which is eq. 2 of the
        DIST paper. Otherwise pixels within 2 px of two nuclei weigh 1 more than this, and those at which two nuclei
        touch are background, after the U-Net paper's idea (Ronneberger et al. 2015, eq. 2).
    mpp : float
        Micrometres per pixel of the images; 0.25 is 40x.
    """

    maps: ClassVar[tuple[str, ...]] = ("probability",)
    postprocessor: ClassVar[str] = "probability"

    architecture: str = "unet"
    width: float = 1.0
    n_feat: int = 24
    depth: int = 3
    stem: int = 2
    border_weight: float = 0.0
    mpp: float = 0.25

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {self.architecture!r}")
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be one of 1 and 2, not {self.stem}")
        if min(self.n_feat, self.depth) < 1:
            raise ValueError(f"n_feat and depth must be positive, not {self.n_feat} and {self.depth}")
        if not 0 < self.width <= 1:
            raise ValueError(f"width must lie in 0..1, not {self.width}")
        if not 0 <= self.border_weight < np.inf:
            raise ValueError(f"border_weight must be a finite number of at least 0, not {self.border_weight}")

    @property
    def _unet(self) -> UNetShape:
        from nuclix.engine.training.unet import UNetShape

        return UNetShape(self.n_feat, self.depth, self.stem, channels=2)

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is the network's reach."""
        from nuclix.plugins.recipes import _probability_networks as networks

        radius, multiple = {
            "baochuan": (networks.BAOCHUAN_RADIUS, networks.BAOCHUAN_MULTIPLE),
            "fcn8s": (networks.FCN_RADIUS, networks.VGG_MULTIPLE),
            "deconvnet": (networks.DECONV_RADIUS, networks.VGG_MULTIPLE),
            "unet": (self._unet.radius, self._unet.multiple),
        }[self.architecture]
        return PatchShape.around(radius, multiple)

    def network(self) -> torch.nn.Module:
        """Return a fresh network with two outputs, background and nucleus: f_2 of the DIST paper, section IV-B."""
        from nuclix.engine.training.unet import UNet
        from nuclix.plugins.recipes import _probability_networks as networks

        if self.architecture == "unet":
            return UNet(self._unet)
        if self.architecture == "baochuan":
            return networks.BaochuanNet()
        return {"fcn8s": networks.FCN8s, "deconvnet": networks.DeconvNet}[self.architecture](self.width)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (2, H, W): t, 1 in nuclei and 0 outside (B of section IV), and the weight w of each pixel.

        Parameters
        ----------
        labels : (H, W) int32
            Label image.
        """
        nucleus, weight = labels > 0, np.ones(labels.shape, np.float32)
        if self.border_weight > 0:
            nucleus &= ~between(labels, GAP_PX)
            weight += np.float32(self.border_weight) * between(labels, BORDER_PX)
        return np.stack([nucleus.astype(np.float32), weight])

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the weighted log loss of the draft's section 4, less its sign, which would reward errors.

        Minus the sum of w log p over an image's pixels, p being the softmax of the pixel's true class, divided by the
        sum of w; then the mean over the images of the batch.
        """
        return weighted_log_loss

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, the softmax' probability of nucleus out."""
        from nuclix.engine.training.unet import Exported
        from nuclix.plugins.recipes._probability_networks import Nucleus

        return Exported(network, Nucleus())

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return a wide grid over p1 around Table I's, and argmax alone; p2 is 0.5 (section VI-D).

        The first is what a training is scored with while it runs.
        """
        grid: list[dict[str, Any]] = [
            {"split_touching": True, "p1": float(p1), "min_area": area}
            for p1 in P1_CANDIDATES
            for area in AREA_CANDIDATES
        ]
        alone = [{"split_touching": False, "min_area": area} for area in AREA_CANDIDATES]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL), *alone]


def between(labels: NDArray[np.int32], reach: int) -> NDArray[np.bool_]:
    """Return which pixels of an (H, W) label image have two nuclei within `reach` px (chessboard)."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size, none = 2 * reach + 1, np.iinfo(np.int32).max
    highest = maximum_filter(labels, size)
    lowest = minimum_filter(np.where(labels > 0, labels, none), size)
    different: NDArray[np.bool_] = (highest > 0) & (highest != lowest)
    return different


def weighted_log_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of (N, 2, H, W) raw outputs; (N, 2, H, W) targets are the class and the weight of each pixel."""
    from torch.nn.functional import cross_entropy

    weight = targets[:, 1]
    losses = cross_entropy(outputs, targets[:, 0].long(), reduction="none")
    return ((weight * losses).sum((1, 2)) / weight.sum((1, 2))).mean()
