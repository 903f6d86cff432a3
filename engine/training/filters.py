"""Filters on batches of images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REACH = 2.5  # a Gaussian is cut off after that many sigmas


def blur(images: torch.Tensor, sigma: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Mix each image with its Gaussian-filtered self: amount 1 blurs, a negative one sharpens.

    Parameters
    ----------
    images : torch.Tensor
        (N, C, H, W) float32.
    sigma, amount : torch.Tensor
        (N,) in pixels; (N,).

    Returns
    -------
    torch.Tensor
        Same shape.
    """
    import torch
    from torch.nn.functional import conv2d, pad

    count, channels = images.shape[:2]
    reach = max(1, math.ceil(REACH * float(sigma.max())))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = pad(images.reshape(1, count * channels, *images.shape[2:]), (reach,) * 4, mode="replicate")
    flat = conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    flat = conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    return torch.lerp(images, flat.view_as(images), amount.view(-1, 1, 1, 1))
