"""Auxiliary outputs of DIST's network: nucleus, border, and where a pixel lies in its nucleus.

None is in the DIST paper. All are removed before the network is exported: they are trained for what learning them does
to the features that the distance is computed from.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.plugins.recipes._centre_distances import centre_distances

if TYPE_CHECKING:
    import torch

SLOPE_WEIGHT = 2.0  # of the error of slopes, that of distances being 1: HoVer-Net paper, section 3.1


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """Which outputs a network has behind its maps while it is trained.

    Attributes
    ----------
    weight : float
        Of the cross-entropies of nucleus and border together; 0 leaves both out.
    border : int
        Reach of the border to each side of an outline, in px.
    centre_weight : float
        Of the errors of HoVer-Net's horizontal and vertical distances; 0 leaves both out.
    """

    weight: float
    border: int
    centre_weight: float

    @property
    def outputs(self) -> int:
        """How many channels there are: nucleus, border, horizontal, vertical."""
        return 2 * (self.weight > 0) + 2 * (self.centre_weight > 0)

    def targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the targets of the auxiliary outputs.

        Parameters
        ----------
        labels : (H, W) int32
            Label image.

        Returns
        -------
        (outputs, H, W) float32
            1 on nuclei; 1 where another label lies within `border` px (chessboard), so `border` px inside and outside;
            horizontal and vertical distances from the centre, -1..1.
        """
        parts = [_regions(labels, self.border)] if self.weight > 0 else []
        if self.centre_weight > 0:
            parts.append(centre_distances(labels))
        return np.concatenate(parts)

    def loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, main: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss of the maps plus the weighted ones of the auxiliary outputs.

        Parameters
        ----------
        outputs, targets : torch.Tensor
            (N, maps + outputs, H, W).
        main : callable
            The loss of the maps.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        from nuclix.plugins.recipes._hovernet_network import centre_loss

        count = self.outputs
        own, wanted = outputs[:, -count:], targets[:, -count:]
        total = main(outputs[:, :-count], targets[:, :-count])
        if self.weight > 0:
            total = total + 2 * self.weight * binary_cross_entropy_with_logits(own[:, :2], wanted[:, :2])
        if self.centre_weight > 0:
            inside = (wanted[:, -2:] != 0).any(1, keepdim=True).to(own.dtype)
            total = total + self.centre_weight * centre_loss(own[:, -2:], wanted[:, -2:], inside, SLOPE_WEIGHT)
        return total

    def removed(self, network: torch.nn.Module, maps: int) -> torch.nn.Module:
        """Return a copy of a `UNet` without these outputs: it computes its first `maps` channels alone."""
        import torch

        narrowed = deepcopy(network)
        head = narrowed.get_submodule("head")
        for module in head.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                keep = module.out_channels // (maps + self.outputs) * maps  # a shuffle makes one map of several
                module.weight = torch.nn.Parameter(module.weight.detach()[:keep].clone(), requires_grad=False)
                module.bias = torch.nn.Parameter(module.bias.detach()[:keep].clone(), requires_grad=False)
                module.out_channels = keep
        return narrowed


def _regions(labels: NDArray[np.int32], border: int) -> NDArray[np.float32]:
    """Return (2, H, W): nucleus, border."""
    from scipy.ndimage import maximum_filter, minimum_filter

    width = 2 * border + 1
    close = maximum_filter(labels, width) != minimum_filter(labels, width)
    return np.stack([labels > 0, close]).astype(np.float32)
