"""Patches of what is on slides and is no nucleus: keratin flakes, fibres, dust on glass.

Annotated images are cut from good tissue; a network that has never seen the rest outlines it. Nothing here is a
picture of anything: streaks of noise, bent and stained at random, stand for all that is thin, folded or dirty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Optical density per unit of stain, R G B (Ruifrok and Johnston 2001): haematoxylin, eosin, and grey dirt.
_STAINS = ((0.650, 0.704, 0.286), (0.216, 0.801, 0.558), (0.577, 0.577, 0.577))
_NOISE = 96  # edge of the noise that streaks are sampled from
# Thinner and longer than the leanest nucleus at 0.25 um/px, so that those are not unlearned.
_WIDTHS = (1.2, 3.5)  # px across a streak
_LENGTHS = (35.0, 110.0)  # px along it
_BEND = 14.0  # px that a streak strays from its line at most, about
_ISLANDS = (24.0, 110.0)  # px across an island of streaks


def artefacts(glass: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Draw flakes and fibres over glass.

    Parameters
    ----------
    glass : torch.Tensor
        (N, 3, S, S) float32 patches of empty glass, 0..255.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        (N, 3, S, S) float32, 0..255.
    """
    import torch

    return torch.stack([_flakes(patch, rng) for patch in glass])


def _between(bounds: tuple[float, float], rng: torch.Generator) -> float:
    import torch

    low, high = bounds
    return low * (high / low) ** float(torch.rand(1, generator=rng))


def _flakes(glass: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return one patch: islands of bent streaks, each streak as thick as its noise is high."""
    import torch

    size = glass.shape[-1]
    angle, cover, bend, contrast, texture = torch.rand(5, generator=rng).tolist()
    rows, cols = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    along = cols * math.cos(math.pi * angle) + rows * math.sin(math.pi * angle)
    across = rows * math.cos(math.pi * angle) - cols * math.sin(math.pi * angle)
    wave = _smooth(rows, cols, 60.0, rng)
    across = across + _BEND * bend * wave
    streaks = _smooth(across, along, (_between(_WIDTHS, rng), _between(_LENGTHS, rng)), rng)
    island = _smooth(across, along, (_between(_ISLANDS, rng) / 2, _between(_ISLANDS, rng)), rng)
    inside = torch.sigmoid(6 * (island + 1.6 * cover - 0.8))
    thickness = inside * (0.25 + torch.relu(streaks + 1.2 * contrast - 0.6)) * (0.3 + 0.9 * contrast)
    thickness = thickness * (1 + 0.35 * texture * torch.randn(size, size, generator=rng))
    return 255 * (glass / 255).clamp_min(1e-3) * torch.exp(-2.3 * _colour(rng)[:, None, None] * thickness.clamp_min(0))


def _colour(rng: torch.Generator) -> torch.Tensor:
    """Return the optical density (3,) of a random mixture of stains."""
    import torch

    amounts = torch.rand(3, generator=rng) * torch.tensor([0.8, 1.0, 0.25])
    return amounts @ torch.tensor(_STAINS)


def _smooth(
    rows: torch.Tensor, cols: torch.Tensor, period: float | tuple[float, float], rng: torch.Generator
) -> torch.Tensor:
    """Return noise of about unit variance that varies over `period` pixels along (rows, cols)."""
    import torch
    from torch.nn.functional import grid_sample

    across, along = period if isinstance(period, tuple) else (period, period)
    noise = torch.randn(1, 1, _NOISE, _NOISE, generator=rng)
    # Reflection at the noise's edge: a patch is at most a few times wider than the noise reaches.
    grid = torch.stack([cols / along, rows / across], dim=-1)[None] * (2 / _NOISE)
    return 1.5 * grid_sample(noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0, 0]
