"""What the HoVer-Net recipe needs of torch: finished maps of raw outputs, and the loss of its distances.

Like `nuclix.engine.training.unet` this module imports torch at its top; import it where it is used.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import conv2d, mse_loss

SLOPE_SIZE = 5  # px: of the filter in the authors' loss
SMOOTH = 1e-3  # px: keeps the mean over no nuclei at 0


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


def centre_loss(outputs: torch.Tensor, targets: torch.Tensor, nuclei: torch.Tensor, weight: float) -> torch.Tensor:
    """Return the loss of horizontal and vertical distances of section 3.1.

    Parameters
    ----------
    outputs, targets : (N, 2, H, W) tensor
        Horizontal, vertical.
    nuclei : (N, 1, H, W) tensor
        1 inside nuclei.
    weight : float
        Of the error of slopes, which counts inside nuclei.
    """
    wrong = (slopes(outputs) - slopes(targets)) ** 2 * nuclei
    sloped = wrong.sum() / (2 * nuclei.sum() + SMOOTH)
    total: torch.Tensor = mse_loss(outputs, targets) + weight * sloped
    return total
