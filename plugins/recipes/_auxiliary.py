"""Auxiliary outputs of DIST's network: whether a pixel is nucleus, and whether it is close to an outline.

Neither is in the paper. Both are removed before the network is exported: they are trained for what learning them does
to the features that the distance is computed from.
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


def auxiliary_targets(labels: NDArray[np.int32], border: int) -> NDArray[np.float32]:
    """Return the targets of the auxiliary outputs.

    Parameters
    ----------
    labels : (H, W) int32
        Label image.
    border : int
        Reach of the border to each side of an outline, in px.

    Returns
    -------
    (2, H, W) float32
        1 on nuclei; 1 where another label lies within `border` px (chessboard), so `border` px inside and outside.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    width = 2 * border + 1
    close = maximum_filter(labels, width) != minimum_filter(labels, width)
    return np.stack([labels > 0, close]).astype(np.float32)


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

    extra = binary_cross_entropy_with_logits(outputs[:, -OUTPUTS:], targets[:, -OUTPUTS:])
    return main(outputs[:, :-OUTPUTS], targets[:, :-OUTPUTS]) + OUTPUTS * weight * extra


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
