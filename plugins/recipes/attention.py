"""Self-supervised nuclei: the attention that a network needs to tell a tile's magnification.

Sahasrabudhe, Christodoulidis, Salgado, Michiels, Loi, André, Paragios, Vakalopoulou: "Self-supervised nuclei
segmentation in histopathological images using attention", MICCAI 2020.

Labels never train. Those of the validation images choose the training step (Dice between attention and truth, section
3.4) and the post-processor's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.contracts import Annotated, BatchShape, BatchSource

MULTIPLE = 16
DEPTHS = (10, 18, 34)
POLARITIES = ("dark", "random")
STAINS = ("varied", "fixed", "none")
MASKS = ("grey", "white")
USUAL = {"threshold": 0.5, "coarse": 2, "fine": 1, "sigma": 1.0, "window": 7}  # section 3.4
THRESHOLDS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)  # about evenly spaced in the confidence map
COARSE, SIGMAS, WINDOWS = (2, 3, 4), (1.0, 1.5), (7, 10, 14)


@dataclass(frozen=True, slots=True)
class AttentionRecipe:
    """How the attention network is trained.

    Attributes
    ----------
    n_feat : int
        Features of every layer of the attention network F; the paper does not say, its code has 32.
    stem : int
        1: F works at full resolution, as in the paper; 2: at half, at a quarter of the cost.
    width, depth : int
        Features of the first stage and layers of the ResNet G; 64 and 34 in the paper. The paper's code starts from
        weights trained on ImageNet; here G starts from scratch.
    eta, compression : float
        Percentile of the confidence map that is the sigmoid's threshold (eq. 1), and its factor r.
    smooth, equivariant, sparse : bool
        Without one of them: M_-smooth, M_-equiv, M_-sparse (section 3.3).
    polarity : str
        What the attention begins with. The loss does not determine whether nuclei or their surroundings get the
        attention; from a random start it may be either. "dark" starts F from what absorbs red light, "random" does not.
    lead : int
        Batches before F begins to learn, in which G learns from what F begins with. The paper's code has no need of
        them: its G starts from weights trained on ImageNet.
    mask : str
        What G sees where F does not attend: "grey" (ImageNet's mean colour, as in the published code) or "white". White
        makes it cheap to attend to pale surroundings, which change nothing of J.
    tau_gradient : bool
        Let gradients flow through tau, which the published code does not.
    slides : str
        Folder of whole slides that tiles are cut from. Empty: the training images' pixels (M_-WSI).
    stain : str
        Colour transfer (Reinhard). "fixed": every tile to the first training image's colours. "varied": every tile
        to those of any training image, chosen at random, so that colour carries no information about magnification.
        Unaltered images can still be given to the network: colours normalised by the patch would make an object depend
        on the patch that it lies in. "none": tiles as they are.
    mpp : float
        Of 40x, the finest of the three magnifications, at which the model is run; the others are half and a quarter.
    """

    maps: ClassVar[tuple[str, ...]] = ("attention",)
    postprocessor: ClassVar[str] = "attention"

    n_feat: int = 32
    stem: int = 1
    width: int = 64
    depth: int = 34
    eta: float = 93.0
    compression: float = 20.0
    smooth: bool = True
    equivariant: bool = True
    sparse: bool = True
    polarity: str = "dark"
    lead: int = 100
    mask: str = "grey"
    tau_gradient: bool = False
    slides: str = ""
    stain: str = "varied"
    mpp: float = 0.25

    def __post_init__(self) -> None:
        if self.stem not in (1, 2):
            raise ValueError(f"stem must be one of 1 and 2, not {self.stem}")
        if self.depth not in DEPTHS:
            raise ValueError(f"depth must be one of {DEPTHS}, not {self.depth}")
        if min(self.n_feat, self.width) < 1:
            raise ValueError(f"n_feat and width must be positive, not {self.n_feat} and {self.width}")
        if not 0 < self.eta < 100:
            raise ValueError(f"eta must lie between 0 and 100, not {self.eta}")
        if not self.compression > 0:
            raise ValueError(f"compression must be positive, not {self.compression}")
        for name, known in (("polarity", POLARITIES), ("stain", STAINS), ("mask", MASKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    @property
    def scale(self) -> Scale:
        """The scale that the model is run at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is F's reach."""
        from nuclix.plugins.recipes._attention_network import radius

        return PatchShape.around(radius(self.stem), MULTIPLE)

    def network(self) -> torch.nn.Module:
        """Return fresh F and G; called, they give F's attention as a logit."""
        from nuclix.plugins.recipes._attention_network import Attention, ScaleClassifier, SelfSupervised, Sparsity
        from nuclix.plugins.recipes._attention_tiles import FACTORS

        sparsity = Sparsity(self.eta if self.sparse else None, self.compression, self.tau_gradient)
        classifier = ScaleClassifier(self.width, self.depth, len(FACTORS))
        attention = Attention(self.n_feat, self.stem, sparsity)
        return SelfSupervised(attention, classifier, self.polarity == "dark")

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return where nuclei are, (1, H, W) of 0 and 1: what validation compares with, never what is learned."""
        return (labels > 0).astype(np.float32)[None]

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return 1 - Dice between attention and truth, the validation loss that chooses the step (section 3.4)."""
        from nuclix.plugins.recipes._attention_objective import dice_loss

        return dice_loss

    def objective(self) -> Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return L_total, eq. 5, of a batch of tiles and their magnifications."""
        from nuclix.plugins.recipes._attention_objective import Objective

        return Objective(self.smooth, self.equivariant, self.lead, self.mask == "grey")

    def batches(self, images: Sequence[Annotated], shape: BatchShape, seed: int) -> BatchSource:
        """Return batches of tiles at three magnifications; the images' labels are not looked at."""
        from nuclix.plugins.recipes._attention_tiles import TileSettings, tile_batches

        return tile_batches(images, TileSettings(self.scale, self.slides, self.stain), shape, seed)

    def schedule(self) -> Mapping[str, Any]:
        """Return section 4.2's settings: 30 epochs of 100 batches, where its scores stop rising (section 3.4).

        The weight decay is AdamW's, decoupled, where the paper has Adam's; the rate is constant.
        """
        return {
            "steps": 3000,
            "batch": 32,
            "patch": 160,
            "learning_rate": 2e-4,
            "decay": 1.0,
            "weight_decay": 1e-4,
            "warmup": 0,
            "early_stopping": 1000,  # no early end, but the best step's weights are kept
            "average": 0.99,
        }

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap F: RGB 0..255 in, attention 0..1 out; tau is the running mean of training, part of the graph."""
        from nuclix.plugins.recipes._attention_network import Exportable

        return Exportable(getattr(network, "attention", network))  # the classifier is of no use any more

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the paper's four parameters with others around them, and thresholds of the attention map."""
        grid = [
            {"threshold": threshold, "coarse": coarse, "fine": 1, "sigma": sigma, "window": window}
            for threshold, coarse, sigma, window in product(THRESHOLDS, COARSE, SIGMAS, WINDOWS)
        ]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL)]
