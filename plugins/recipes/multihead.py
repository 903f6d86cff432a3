"""Multi-head U-Nets: nuclei, borderless nuclei and the borders where nuclei touch.

Rocha de Andrade: "Nuclei detection based on Fully Convolutional Networks", UNICAMP (2018), a system for the Data
Science Bowl 2018. Sections cited here are that paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import PatchShape
from nuclix.engine.geometry import Scale
from nuclix.plugins.recipes._multihead_shape import MULTIPLE, MultiHeadShape

if TYPE_CHECKING:
    import torch

CRITERIA = ("both", "cross-entropy", "dice")
SMOOTH_PX = 1.0  # added to both sides of the Dice fraction: a map without a pixel in the batch has a loss, not 0 / 0
NUCLEI_CANDIDATES = (0.2, 0.3, 0.4, 0.5, 0.6)
MARKER_CANDIDATES = (0.3, 0.5, 0.7, 0.8, 0.9)
AREA_CANDIDATES = (0, 16)  # px
USUAL = {"nuclei": 0.5, "marker": 0.5, "min_area": 0}


@dataclass(frozen=True, slots=True)
class MultiHeadRecipe:
    """How the multi-head networks are trained.

    Attributes
    ----------
    architecture : str
        unet (section 5.2.1), xception (5.2.2; from random weights, for nobody else's weights go into nuclix) or
        inception-se (5.2.3).
    width : float
        Factor on the numbers of features of the U-Net and Xception papers; the paper has 1.
    middle : int
        Blocks of Xception's middle flow; 8 in its paper. Each adds 48 px to the network's reach.
    squeeze : int
        Edge of the window, in cells of each level, that squeeze-and-excitation averages over. 0 is the whole patch, as
        in the paper: then every pixel's answer depends on its whole patch, and no margin hides where patches meet.
    activation : str
        selu, elu or relu (section 5.4).
    criterion : str
        Loss: both (cross-entropy + soft Dice), cross-entropy or dice (section 5.5).
    shrink : int
        Borderless nuclei are eroded by a square of 2 `shrink` + 1 px.
    touch : int
        Touching borders lie within `touch` px (chessboard) of two nuclei or more.
    mpp : float
        Micrometres per pixel. The competition's images do not say theirs; nuclei of its H&E images are as large as
        at 40x.
    """

    maps: ClassVar[tuple[str, ...]] = ("nuclei", "borderless", "touching")
    postprocessor: ClassVar[str] = "markers"

    architecture: str = "inception-se"
    width: float = 0.25
    middle: int = 2
    squeeze: int = 5
    activation: str = "selu"
    criterion: str = "both"
    shrink: int = 2
    touch: int = 2
    mpp: float = 0.25

    def __post_init__(self) -> None:
        _ = self._shape  # refuses what no network can be
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, not {self.criterion!r}")
        if min(self.shrink, self.touch) < 1:
            raise ValueError(f"shrink and touch must be positive, not {self.shrink} and {self.touch}")

    @property
    def _shape(self) -> MultiHeadShape:
        return MultiHeadShape(self.architecture, self.width, self.middle, self.squeeze, self.activation, len(self.maps))

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """The patch that the exported model works on; its margin is the reach of the network's convolutions."""
        return replace(PatchShape.around(self._shape.margin, MULTIPLE), dynamic=not self.sees_whole_patch)

    @property
    def sees_whole_patch(self) -> bool:
        """Whether the network averages over its whole patch (`squeeze` = 0), which no margin can hide."""
        return self._shape.sees_whole_patch

    def network(self) -> torch.nn.Module:
        """Return a fresh network with three raw outputs, Glorot's initial weights (section 5.2.1)."""
        from nuclix.plugins.recipes._multihead_network import build

        return build(self._shape)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the masks of Fig. 4 by morphological operations on the labels (section 5.3.1).

        The paper gives neither operations nor radii. Here a pixel is *borderless* if the square of 2 `shrink` + 1 px
        around it is all one nucleus, and a *touching border* if the square of 2 `touch` + 1 px around it holds pixels
        of two nuclei or more, be it in a nucleus or in the gap between two. What lies beyond the image counts as the
        image's edge does.

        Parameters
        ----------
        labels : (H, W) int32
            Label image.

        Returns
        -------
        (3, H, W) float32
            1 inside, 0 outside: nuclei, borderless nuclei, touching borders.
        """
        nuclei = labels > 0
        least, most = _extremes(labels, self.shrink)
        borderless = nuclei & (least == most)
        ground = np.iinfo(np.int32).max
        nearest = _extremes(np.where(nuclei, labels, ground), self.touch)[0]
        farthest = _extremes(labels, self.touch)[1]
        touching = (farthest > 0) & (nearest != farthest)
        return np.stack([nuclei, borderless, touching]).astype(np.float32)

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the loss of section 5.5: cross-entropy, soft Dice or their sum.

        The maps overlap (a borderless pixel is a nucleus' too), so each has its own sigmoid and two-class
        cross-entropy, averaged over pixels and maps. Eq. 3 as printed, 1 - 2 |A n B| / |A u B|, is not the Dice
        loss: it falls to -1 where A = B and its zero is at an IoU of one half. It is taken for a slip of 1 -
        2 |A n B| / (|A| + |B|), which the section names and which lies in 0..1; with probabilities, |A n B| is
        the sum of products. One fraction a map, over the whole batch, for many patches have no touching border.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return binary_cross_entropy_with_logits(outputs, targets)

        def dice(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            found = outputs.sigmoid()
            axes = (0, 2, 3)
            both, each = (found * targets).sum(axes), found.sum(axes) + targets.sum(axes)
            return (1 - (2 * both + SMOOTH_PX) / (each + SMOOTH_PX)).mean()

        def total(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return cross_entropy(outputs, targets) + dice(outputs, targets)

        return {"both": total, "cross-entropy": cross_entropy, "dice": dice}[self.criterion]

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, three probabilities out."""
        from torch.nn import Sigmoid

        from nuclix.engine.training.unet import Exported

        return Exported(network, Sigmoid())

    def schedule(self) -> Mapping[str, Any]:
        """Return the paper's peak rate and no weight decay (section 6), and weaker changes of brightness.

        The paper's rate falls by 25 % every 3 epochs (`--decay 0.75 --decay-every STEPS`); here it falls along the
        usual cosine, which suits short trainings. Fluorescence images are dark: what is added to their grey levels or
        scaled about mid-grey must stay small. Streaks belong to slides.
        """
        return {
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "augmentation": {"brightness": 3.0, "contrast": 0.03, "noise_sigma": 4.0, "streaks": 0.0},
        }

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return the thresholds among which validation chooses; the first scores a training while it runs."""
        grid = [
            {"nuclei": nuclei, "marker": marker, "min_area": area}
            for nuclei in NUCLEI_CANDIDATES
            for marker in MARKER_CANDIDATES
            for area in AREA_CANDIDATES
        ]
        return [USUAL, *(candidate for candidate in grid if candidate != USUAL)]


def _extremes(labels: NDArray[np.int32], radius: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the least and the largest label in the square of 2 `radius` + 1 px around each pixel."""
    from scipy.ndimage import maximum_filter, minimum_filter

    edge = 2 * radius + 1
    return minimum_filter(labels, edge, mode="nearest"), maximum_filter(labels, edge, mode="nearest")
