"""The encoder-decoder that learns from partly annotated images.

Mercadier, Besbinar, Frossard: "Automatic segmentation of nuclei in histopathology images using encoding-decoding
convolutional neural networks", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale
from nuclix.plugins.recipes import _partial

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.unet import UNetShape

PAPER_PATCH, PAPER_MARGIN = 256, 64  # section 3.1: patches of 256 px every 128 px, the middle 128 px are kept
NUCLEUS = 1  # which of the two classes
WEIGHTS = ("clusters", "near", "plain")
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)
AREAS = (0, 20, 40, 80)  # px; 40 are 2.5 um^2
USUAL = {"threshold": 0.5, "min_area": 0}
# Section 3.1: share of a patch that the dilated masks of nuclei and of background must exceed.
MIN_NUCLEI, MIN_BACKGROUND = 0.1, 0.4
DILATION = 3  # px, radius of the disc that dilates them; the paper gives none
# Section 3.1: Adam from 0.001, times 0.95 every hundredth of the training; quarter turns, tta and elastic bends.
SCHEDULE: Mapping[str, Any] = {
    "steps": 6000,
    "batch": 6,
    "patch": 256,
    "learning_rate": 1e-3,
    "decay": 0.95,
    "decay_every": 60,
    "min_learning_rate": 1e-5,
    "weight_decay": 0.0,
    "warmup": 0,
}
VIEWS: Mapping[str, Any] = {"mirror": True, "elastic": 2.0, "elastic_spacing": 32}


@dataclass(frozen=True, slots=True)
class EncDecRecipe:
    """How the encoder-decoder is trained.

    The paper leaves open alpha, beta, the radius of the disc and (in its text) the widths of the network.

    Attributes
    ----------
    n_feat : int
        Features of the first convolution, doubled at every pooling; 64 in the U-Net that the paper modifies.
    levels : int
        Blocks of the encoder, with a pooling between two. The paper's "five encoding and five decoding layers" are
        read as the U-Net's five resolutions; the fifth decoding layer is the one that gives the two classes.
    weights : str
        How unlabelled pixels count as background: "clusters" is m-hat of eq. 4, "near" is m of eq. 3, "plain" is
        1 everywhere (cross-entropy).
    alpha, beta : float
        Of eq. 3: px around a nucleus that surely are background, and how fast (per px) that fades.
    certainty : float
        lambda of eq. 4: weight of the background cluster; 0.5 in the paper's Figure 2.
    erosion : int
        Radius (px) of the disc c of eq. 4.
    gap : bool
        Pixels that touch another nucleus are background. Components can't tell nuclei apart that have no background
        between them, and the paper's data leaves some; ours does not. False is the paper's y.
    decay : float
        gamma of eq. 5: weight of the squared weights of the convolutions.
    annotated : float
        Share of the nuclei whose outlines are used, chosen by a hash of their first pixel: simulates a partial
        annotation on images that are fully annotated. 1 for real data.
    choose_patches : bool
        Train on patches of which the dilated nuclei cover over 10 % and the dilated background over 40 %, as the paper
        does; False takes every patch.
    paper_patch : bool
        Export with the paper's patches of 256 px of which the middle 128 px are kept. The network sees farther than
        those 64 px, so that results change a little with the place of the grid; False keeps `nuclix run`'s promise
        with a margin that covers all the network sees.
    mpp : float
        Micrometres per pixel of the images; 0.25 is 40x.
    """

    maps: ClassVar[tuple[str, ...]] = ("nucleus",)
    postprocessor: ClassVar[str] = "components"

    n_feat: int = 8
    levels: int = 5
    weights: str = "clusters"
    alpha: float = 4.0
    beta: float = 0.2
    certainty: float = 0.5
    erosion: int = 3
    gap: bool = True
    decay: float = 1e-5
    annotated: float = 1.0
    choose_patches: bool = True
    paper_patch: bool = False
    mpp: float = 0.25

    def __post_init__(self) -> None:
        if self.n_feat < 1 or self.levels < 2:
            raise ValueError(f"n_feat must be positive and levels at least 2, not {self.n_feat} and {self.levels}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {self.weights}")
        if min(self.alpha, self.beta, self.erosion, self.decay) < 0:
            raise ValueError("alpha, beta, erosion and decay must be at least 0")
        if not 0 <= self.certainty <= 1:
            raise ValueError(f"certainty must lie in 0..1, not {self.certainty}")
        if not 0 < self.annotated <= 1:
            raise ValueError(f"annotated must be over 0 and at most 1, not {self.annotated}")

    @property
    def _shape(self) -> UNetShape:
        from nuclix.engine.training.unet import UNetShape

        return UNetShape(self.n_feat, self.levels - 1, 1, channels=2)

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is the network's reach, or the paper's."""
        shape = self._shape
        if self.paper_patch:
            return PatchShape(PAPER_PATCH, PAPER_MARGIN, shape.multiple)
        return PatchShape.around(shape.radius, shape.multiple)

    def schedule(self) -> Mapping[str, Any]:
        """Return the paper's optimisation and augmentation (section 3.1) over fewer steps.

        The paper's own 100,000 steps are ``--steps 100000 --decay-every 1000``.
        """
        from nuclix.engine.parameters import as_mapping
        from nuclix.engine.training.augmentation import NONE

        return {**SCHEDULE, "augmentation": {**as_mapping(NONE), **VIEWS}}

    def network(self) -> torch.nn.Module:
        """Return a fresh encoder-decoder (section 2.1) with one raw output a class: background, nucleus."""
        from nuclix.plugins.recipes._encdec_network import EncoderDecoder

        return EncoderDecoder(self._shape)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the target of labels of an unknown image: `targets_with_auxiliary` without a background cluster."""
        return self.targets_with_auxiliary(labels, self._doubtful(labels, np.ones(labels.shape, np.bool_)))

    def auxiliary_maps(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (2, H, W): where the eroded background cluster is not, and which nuclei are not annotated.

        Both are 0 where there is nothing to doubt, so that maps of zeros mean background everywhere.
        """
        if self.weights == "clusters":
            return self._doubtful(labels, ~_partial.eroded(_partial.background_cluster(image), self.erosion))
        return self._doubtful(labels, np.ones(labels.shape, np.bool_))

    def _doubtful(self, labels: NDArray[np.int32], doubtful: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.stack([doubtful, _partial.not_outlined(labels, self.annotated)]).astype(np.float32)

    def targets_with_auxiliary(self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (2, H, W) weights of the two logarithms of eq. 5: m-hat (1 - y) for background, y for nuclei.

        The union of eq. 4 is taken as the larger of m and lambda b.
        """
        outlined = np.where(auxiliary[1] > 0, 0, labels)
        nuclei = outlined > 0
        if self.gap:
            nuclei &= ~_partial.touching(outlined)
        if self.weights == "plain":
            return np.stack([~nuclei, nuclei]).astype(np.float32)
        near = _partial.near_nuclei(nuclei, self.alpha, self.beta)
        weight = np.maximum(near, self.certainty * (auxiliary[0] == 0))
        return np.stack([weight * ~nuclei, nuclei]).astype(np.float32)

    def accepts(self, labels: NDArray[np.int32], auxiliary: NDArray[np.float32]) -> bool:
        """Return whether a patch holds enough of nuclei and of background (section 3.1)."""
        if not self.choose_patches:
            return True
        nuclei = _partial.dilated((labels > 0) & (auxiliary[1] == 0), DILATION)
        background = _partial.dilated((labels == 0) & (auxiliary[0] == 0), DILATION)
        return bool(nuclei.mean() > MIN_NUCLEI and background.mean() > MIN_BACKGROUND)

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the weighted cross-entropy, the first two terms of eq. 5 with the minus that it lacks.

        The paper sums over pixels; this is the mean. `objective` divides gamma by the number of pixels to match.
        """

        def weighted_log_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return -(targets * outputs.log_softmax(1)).sum(1).mean()

        return weighted_log_loss

    def objective(self) -> Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return all of eq. 5 divided by the number of a patch's pixels, a factor that does not change Adam's steps.

        That is the loss, which is a mean over pixels, and gamma / (H W) times the sum of the convolutions' squared
        weights.
        """
        import torch

        criterion, convolutions = self.loss(), (torch.nn.Conv2d, torch.nn.ConvTranspose2d)

        def objective(network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            outputs = network(images)
            with torch.autocast(outputs.device.type, enabled=False):
                squares = [part.weight.square().sum() for part in network.modules() if isinstance(part, convolutions)]
                gamma = self.decay / (targets.shape[-2] * targets.shape[-1])
                return criterion(outputs.float(), targets) + gamma * torch.stack(squares).sum()

        return objective

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, the probability of the class nucleus out."""
        from nuclix.engine.training.unet import ClassProbability, Exported

        return Exported(network, ClassProbability(NUCLEUS))

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the paper's more likely class (a threshold of 0.5, components as they are), then variations of it."""
        grid = [{"threshold": threshold, "min_area": area} for threshold in THRESHOLDS for area in AREAS]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL)]
