"""Patches without nuclei that annotated images do not show: background with dust, and streaks such as keratin.

The images that people annotate are cut from the middle of tissue. Whole slides also hold background, dust, fibres,
folds and flakes of keratin, and a network that never saw them finds nuclei there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nuclix.engine.training.filters import blur

if TYPE_CHECKING:
    import torch

STRETCH = (5.0, 12.0)  # how far streaks are drawn out: a nucleus of 30 px becomes one of 150 to 360 px
WAVE, WAVE_KNOTS = 12.0, 5  # standard deviation (px) and knots along an edge of the bends of streaks
FLAKE_GRAIN = 14.0  # px along which a flake's edge varies, before it is drawn out
THINNEST = 0.6  # standard deviations of the noise over which there is flake: about a quarter of a patch
DENSITY = (0.7, 1.9)  # gamma: keratin is often darker than the tissue around it
WHITE = (210.0, 252.0)
SPECKS = 8.0  # mean number of specks of dust in a patch of background of 256 x 256 px
SPECK_AREA = 256.0**2


def streaked(grid: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Draw a patch out along a random direction, with bends, so that no nucleus of it is one any more.

    Parameters
    ----------
    grid : torch.Tensor
        (S, S, 2) where in the image each pixel of a patch comes from.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        The same for the drawn-out patch.
    """
    import torch
    from torch.nn.functional import interpolate

    angle, stretch, across = torch.rand(3, generator=rng).tolist()
    along = torch.tensor([math.sin(angle * math.tau), math.cos(angle * math.tau)])
    factor = STRETCH[0] + (STRETCH[1] - STRETCH[0]) * stretch
    bends = torch.randn(1, 2, WAVE_KNOTS, WAVE_KNOTS, generator=rng) * WAVE
    bends = interpolate(bends, size=grid.shape[:2], mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    centre = grid.mean((0, 1))
    offsets = (grid - centre + bends) * (0.7 + 0.6 * across)
    return centre + offsets - (1 - 1 / factor) * (offsets @ along)[..., None] * along


def flakes(images: torch.Tensor, grids: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Cut streaks into flakes that lie on background: more of some patches, less of others, some not at all.

    Parameters
    ----------
    images : torch.Tensor
        (N, 3, S, S) float32 in 0..255, drawn out.
    grids : torch.Tensor
        (N, S, S, 2) of `streaked`, so that the flakes are drawn out likewise.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        Same shape.
    """
    import torch
    from torch.nn.functional import grid_sample

    count, _, size, _ = images.shape
    low, span = DENSITY[0], DENSITY[1] - DENSITY[0]
    gamma = low + span * torch.rand(count, 1, 1, 1, generator=rng)
    dark = 255 * (images / 255) ** gamma
    noise = torch.randn(count, 1, 64, 64, generator=rng)
    positions = (grids - grids.mean((1, 2), keepdim=True)) / (FLAKE_GRAIN * 32)
    height = grid_sample(noise, positions.flip(-1), mode="bilinear", padding_mode="reflection", align_corners=True)
    level = THINNEST - 2 * torch.rand(count, 1, 1, 1, generator=rng)
    covered = torch.clamp((height - level) * 4, 0, 1)
    return covered * dark + (1 - covered) * background(count, size, rng)


def background(count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """Return (count, 3, size, size) empty background: near-white, a tint, a slow gradient, grain and specks of dust."""
    import torch
    from torch.nn.functional import interpolate

    white = WHITE[0] + (WHITE[1] - WHITE[0]) * torch.rand(count, 1, 1, 1, generator=rng)
    tint = 4 * torch.randn(count, 3, 1, 1, generator=rng)
    slow = interpolate(3 * torch.randn(count, 1, 4, 4, generator=rng), size=(size, size), mode="bicubic")
    grain = torch.rand(count, 1, 1, 1, generator=rng) * 4 * torch.randn(count, 3, size, size, generator=rng)
    return (white + tint + slow + grain - _dust(count, size, rng)).clamp(0, 255)


def _dust(count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """Return how much darker specks of dust make each pixel: about as dark as ink or faint, each image of one kind."""
    import torch

    hit = torch.rand(count, 1, size, size, generator=rng) < SPECKS / SPECK_AREA
    sigma = 0.6 + 2.4 * torch.rand(count, generator=rng)
    spots = blur(hit.float(), sigma, torch.ones(count)) * (math.tau * sigma**2).view(-1, 1, 1, 1)
    depth = 20 + 180 * torch.rand(count, 1, 1, 1, generator=rng)
    colour = 0.6 + 0.4 * torch.rand(count, 3, 1, 1, generator=rng)
    return depth * colour * spots.clamp(max=1)
