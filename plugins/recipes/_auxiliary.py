"""What DIST's network may learn beside the distance: whether a pixel is nucleus, and whether it is an edge.

Neither is in the paper. Both leave the network before it is exported: they are there for what learning them does to
the features that the distance is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

OUTPUTS = 2
EDGE_PX = 3  # a pixel is an edge if the square of this width around it holds more than one label


def auxiliary_targets(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return (2, H, W) of (H, W) labels: 1 on nuclei, and 1 where a nucleus ends."""
    from scipy.ndimage import maximum_filter, minimum_filter

    edge = maximum_filter(labels, EDGE_PX) != minimum_filter(labels, EDGE_PX)
    return np.stack([labels > 0, edge]).astype(np.float32)


def auxiliary_loss(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    main: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    weight: float,
) -> torch.Tensor:
    """Return the main loss plus `weight` times the cross-entropies of the last two channels.

    Parameters
    ----------
    outputs, targets : torch.Tensor
        (N, channels + 2, H, W).
    main : callable
        The loss of what comes before the last two channels.
    weight : float
        Of both together.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    beside = binary_cross_entropy_with_logits(outputs[:, -OUTPUTS:], targets[:, -OUTPUTS:])
    return main(outputs[:, :-OUTPUTS], targets[:, :-OUTPUTS]) + OUTPUTS * weight * beside


def without_auxiliary(network: torch.nn.Module, outputs: int) -> torch.nn.Module:
    """Return a copy of a `UNet` without its last two maps: it computes the first `outputs` alone."""
    import torch

    narrowed = deepcopy(network)
    head = narrowed.get_submodule("head")
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            keep = module.out_channels // (outputs + OUTPUTS) * outputs  # a shuffle makes one map of several
            module.weight = torch.nn.Parameter(module.weight.detach()[:keep].clone(), requires_grad=False)
            module.bias = torch.nn.Parameter(module.bias.detach()[:keep].clone(), requires_grad=False)
            module.out_channels = keep
    return narrowed
