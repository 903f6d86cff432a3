"""What the HoVer-Net recipe needs of torch: finished maps of raw outputs, and the slopes of its loss.

Like `nuclix.engine.training.unet` this module imports torch at its top; import it where it is used.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import conv2d

SLOPE_SIZE = 5  # px: of the filter in the authors' loss


class Maps(nn.Module):
    """Nucleus logits to probabilities; the distances stay as they are."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, H, W) maps of raw outputs."""
        return torch.cat([outputs[:, :1].sigmoid(), outputs[:, 1:]], 1)


def slopes(distances: torch.Tensor) -> torch.Tensor:
    """Return the slope of the horizontal map along rows and of the vertical one along columns.

    Parameters
    ----------
    distances : (N, 2, H, W) tensor
        Horizontal, vertical.

    Returns
    -------
    (N, 2, H, W) tensor
        Weights are x / (x^2 + y^2) in a square of `SLOPE_SIZE` px; beyond the image there is nothing.
    """
    half = SLOPE_SIZE // 2
    along = torch.arange(-half, half + 1, dtype=distances.dtype, device=distances.device)
    rows, cols = torch.meshgrid(along, along, indexing="ij")
    below = (rows**2 + cols**2).clamp(min=1e-12)
    weights = torch.stack([cols / below, rows / below])[:, None]
    return conv2d(distances, weights, padding=half, groups=2)
