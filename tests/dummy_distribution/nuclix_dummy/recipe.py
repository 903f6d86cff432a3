"""A network of one number: how dark a nucleus is."""

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

PATCH_PX = 64


@dataclass(frozen=True, slots=True)
class DarknessRecipe:
    """Logistic regression of "nucleus" on a pixel's colour.

    Attributes
    ----------
    mpp : float
        Micrometres per pixel of the images.
    """

    maps: ClassVar[tuple[str, ...]] = ("probability",)
    postprocessor: ClassVar[str] = "threshold"

    mpp: float = 0.25

    @property
    def scale(self) -> Scale:
        """The scale that the network works at."""
        return Scale(self.mpp)

    @property
    def patch(self) -> PatchShape:
        """A pixel's answer depends on that pixel alone, so a patch needs no margin."""
        return PatchShape(PATCH_PX, margin=0)

    def network(self) -> torch.nn.Module:
        """Return a 1 x 1 convolution from colour to logit."""
        from torch.nn import Conv2d

        return Conv2d(3, 1, kernel_size=1)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return 1 on nuclei and 0 elsewhere."""
        return (labels > 0).astype(np.float32)[None]

    def loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the cross-entropy of logits."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits

    def exported(self, network: torch.nn.Module) -> torch.nn.Module:
        """Wrap the network: RGB 0..255 in, probabilities out."""
        from torch.nn import Sigmoid

        from nuclix.engine.training.unet import Exported

        return Exported(network, Sigmoid())

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Return thresholds from lenient to strict."""
        return [{"level": level} for level in (0.3, 0.5, 0.7)]
