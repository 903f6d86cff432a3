"""Fold batch normalisation into convolutions before a network is exported."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions have absorbed the batch norms that follow them.

    Parameters
    ----------
    module : torch.nn.Module
        Any module; batch norms directly after a convolution in an ``nn.Sequential`` are folded.

    Returns
    -------
    torch.nn.Module
        A copy; the input is left as it was.
    """
    folded = deepcopy(module).eval()
    for part in folded.modules():
        if not isinstance(part, nn.Sequential):
            continue
        names = list(part._modules)
        for first, second in pairwise(names):
            before, norm = part._modules[first], part._modules[second]
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part._modules[first] = fuse_conv_bn_eval(before, norm)
                part._modules[second] = nn.Identity()
    return folded
