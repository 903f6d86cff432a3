"""Random views of annotated images: geometry on image and labels alike, then stain, focus and noise on the image.

Labels are warped with nearest neighbour and targets are made from the warped labels, so that distances stay true
after scaling and bending. All random numbers come from one generator that the caller seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from nuclix.engine.training.filters import blur
from nuclix.ext.stains import EOSIN, HEMATOXYLIN

if TYPE_CHECKING:
    import torch

OD_FLOOR = 1.0  # added to 0..255 so that black has a finite optical density
OD_RANGE = 256.0
MIN_SIGMA = 0.4  # px; a narrower Gaussian does nothing
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly patches are varied; zeros everywhere leave only the choice of the patch.

    Attributes
    ----------
    mirror : bool
        The eight symmetries of the square.
    rotation : float
        Probability of turning by any angle.
    scale : float
        Largest magnification s; drawn log-uniformly from 1/s..s. 1 keeps the size.
    shear : float
        Largest shear along either axis, drawn uniformly: 0.1 moves a row by a tenth of its distance to the centre.
    elastic, elastic_spacing : float, int
        Standard deviation (px) of random displacements on a grid of that spacing (px), interpolated between.
    stain_gain, stain_shift, stain_turn : float
        Standard deviations, in colour-deconvolution space, of each stain's log gain, of its offset (optical
        density) and of the stain vectors' components (DIST paper, section VI-B).
    brightness, contrast, saturation : float
        Standard deviations: grey levels, log factor about mid-grey, log factor about the grey axis.
    channel_shuffle : float
        Probability of a random order of the channels. For images whose colours mean nothing, such as fluorescence and
        stains of every kind together; it takes from H&E what tells the stains apart.
    blur, blur_sigma, sharpen : float
        Probability of a Gaussian of up to that sigma (px), and the probability of its opposite.
    low_resolution : float
        Probability of halving the resolution, as a 20x slide scaled up to 40x has it.
    noise, noise_sigma : float
        Probability of additive noise of up to that standard deviation (grey levels).
    background, streaks : float
        Probabilities of a patch of empty background instead of the image, and of one that is drawn out to streaks;
        neither has nuclei (see `nuclix.engine.training.negatives`).
    """

    mirror: bool = True
    rotation: float = 0.6
    scale: float = 1.33
    shear: float = 0.0
    elastic: float = 1.6
    elastic_spacing: int = 32
    stain_gain: float = 0.25
    stain_shift: float = 0.03
    stain_turn: float = 0.06
    brightness: float = 8.0
    contrast: float = 0.1
    saturation: float = 0.15
    channel_shuffle: float = 0.0
    blur: float = 0.25
    blur_sigma: float = 1.5
    sharpen: float = 0.15
    low_resolution: float = 0.2
    noise: float = 0.25
    noise_sigma: float = 9.0
    background: float = 0.03
    streaks: float = 0.04

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{item.name} must be 0 or more, not {value}")
        if self.scale < 1:
            raise ValueError(f"scale must be 1 (no change of size) or more, not {self.scale}")


FORMER_NAMES = {"glass": "background"}  # of fields; accepted for one release


def present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of an augmentation with former names of fields replaced by the present ones."""
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}


NONE = Augmentation(
    mirror=False, rotation=0, scale=1, elastic=0, stain_gain=0, stain_shift=0, stain_turn=0, brightness=0, contrast=0,
    saturation=0, blur=0, sharpen=0, low_resolution=0, noise=0, background=0,
    streaks=0,
)  # fmt: skip


def _linear_map(settings: Augmentation, rng: torch.Generator) -> torch.Tensor:
    """Return the (2, 2) matrix from patch to image offsets: a symmetry of the square, a turn, shear and a scale."""
    import torch

    flip, swap, turned, angle, zoom = torch.rand(5, generator=rng).tolist()
    matrix = torch.eye(2)
    if settings.mirror:
        quarter = int(swap * 4)
        matrix = torch.matrix_power(torch.tensor([[0.0, -1.0], [1.0, 0.0]]), quarter)
        if flip < 0.5:
            matrix = matrix @ torch.diag(torch.tensor([1.0, -1.0]))
    if turned < settings.rotation:
        sine, cosine = math.sin(angle * math.tau), math.cos(angle * math.tau)
        matrix = matrix @ torch.tensor([[cosine, -sine], [sine, cosine]])
    if settings.shear > 0:  # drawn only where asked for: other settings keep the random numbers that they had
        along_rows, along_columns = ((2 * torch.rand(2, generator=rng) - 1) * settings.shear).tolist()
        matrix = matrix @ torch.tensor([[1.0, along_rows], [along_columns, 1.0]])
    return matrix * float(settings.scale ** (2 * zoom - 1))


def _centre(extent: torch.Tensor, shape: tuple[int, int], size: int, rng: torch.Generator) -> torch.Tensor:
    """Draw the patch's centre so that `extent` pixels on each side stay inside an image of `shape`, if they can.

    Positions are those of a patch of whole pixels; drawing them from a wider range and clamping makes up for the
    edges that turned patches reach less often.
    """
    import torch

    draws = torch.rand(2, generator=rng)
    half = (size - 1) / 2
    centre = torch.zeros(2)
    for axis in range(2):
        room = max(shape[axis] - size, 0)
        start = torch.floor(draws[axis] * (room + 1)).clamp(max=room) + half
        low = float(extent[axis])
        high = shape[axis] - 1 - low
        centre[axis] = start.clamp(low, high) if low <= high else (shape[axis] - 1) / 2
    return centre


def sampling_grid(
    shape: tuple[int, int], size: int, context: int, settings: Augmentation, rng: torch.Generator
) -> torch.Tensor:
    """Draw a patch: where in the image each of its pixels comes from.

    Parameters
    ----------
    shape : tuple of int
        The image's height and width.
    size : int
        The patch's edge in pixels.
    context : int
        Pixels around the patch that the targets are computed with.
    settings : Augmentation
        How far patches may be turned, scaled and bent.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        (size + 2 context, size + 2 context, 2) row and column in the image, in pixels.
    """
    import torch
    from torch.nn.functional import interpolate

    matrix = _linear_map(settings, rng)
    centre = _centre(matrix.abs().sum(1) * ((size - 1) / 2), shape, size, rng)
    full = size + 2 * context
    axis = torch.arange(full, dtype=torch.float32) - (full - 1) / 2
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    grid = offsets @ matrix.T + centre
    if settings.elastic > 0:
        knots = -(-full // settings.elastic_spacing) + 1
        field = torch.randn(1, 2, knots, knots, generator=rng) * settings.elastic
        grid = grid + interpolate(field, size=(full, full), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    return grid


def warp(image: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """Read an image at fractional positions; beyond its edge it is mirrored.

    Parameters
    ----------
    image : torch.Tensor
        (C, H, W) of any dtype.
    grid : torch.Tensor
        (h, w, 2) row and column in pixels.
    mode : str
        "bilinear" or "nearest".

    Returns
    -------
    torch.Tensor
        (C, h, w) float32.
    """
    import torch
    from torch.nn.functional import grid_sample

    height, width = image.shape[1:]
    (top, bottom), (left, right) = (_span(grid[..., axis], extent) for axis, extent in enumerate((height, width)))
    part = image[None, :, top:bottom, left:right].float()
    extent = torch.tensor([max(bottom - top - 1, 1), max(right - left - 1, 1)])
    normalised = (grid - torch.tensor([top, left])) * (2 / extent) - 1
    return grid_sample(part, normalised.flip(-1)[None], mode=mode, padding_mode="reflection", align_corners=True)[0]


def _span(positions: torch.Tensor, extent: int) -> tuple[int, int]:
    """Return the part of 0..extent that holds all positions and their neighbours; reading that much is enough."""
    low, high = positions.aminmax()
    return max(math.floor(float(low)) - 1, 0), min(math.ceil(float(high)) + 2, extent)


def _colour_maps(count: int, settings: Augmentation, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (N, 3, 3) and (N, 3, 1): the affine map of optical densities that changes each stain on its own."""
    import torch
    from torch.nn.functional import normalize

    stains = torch.tensor([HEMATOXYLIN, EOSIN])
    stains = normalize(torch.cat([stains, torch.linalg.cross(stains[0], stains[1])[None]]), dim=1)
    gain = torch.exp(settings.stain_gain * torch.randn(count, 3, generator=rng))
    shift = settings.stain_shift * torch.randn(count, 3, generator=rng)
    turned = normalize(stains + settings.stain_turn * torch.randn(count, 3, 3, generator=rng), dim=2)
    matrix = torch.linalg.inv(stains) @ torch.diag_embed(gain) @ turned  # densities are rows here
    return matrix.transpose(1, 2), (shift[:, None] @ turned).transpose(1, 2)


def stain(images: torch.Tensor, settings: Augmentation, rng: torch.Generator) -> torch.Tensor:
    """Vary the stains in optical density, then brightness, contrast, saturation and the order of the channels.

    Parameters
    ----------
    images : torch.Tensor
        (N, 3, H, W) float32, 0..255.
    settings : Augmentation
        How strongly.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        Same shape and range.
    """
    import torch

    count = images.shape[0]
    flat = images.flatten(2)
    if settings.stain_gain or settings.stain_shift or settings.stain_turn:
        matrix, offset = _colour_maps(count, settings, rng)
        density = -torch.log2((flat + OD_FLOOR) / OD_RANGE) * math.log10(2)
        flat = OD_RANGE * torch.exp2(torch.baddbmm(offset, matrix, density) * -math.log2(10)) - OD_FLOOR
    if settings.brightness or settings.contrast or settings.saturation:
        grey = torch.tensor(LUMA).expand(3, 3)
        level = settings.brightness * torch.randn(count, 1, 1, generator=rng)
        contrast = torch.exp(settings.contrast * torch.randn(count, 1, 1, generator=rng))
        colour = torch.exp(settings.saturation * torch.randn(count, 1, 1, generator=rng))
        flat = torch.baddbmm(128 * (1 - contrast) + level, contrast * (grey + colour * (torch.eye(3) - grey)), flat)
    images = flat.clamp(0, 255).view_as(images)
    if settings.channel_shuffle > 0:
        chosen = torch.rand(count, generator=rng) < settings.channel_shuffle
        orders = torch.rand(count, images.shape[1], generator=rng).argsort(1)
        shuffled = images.gather(1, orders[:, :, None, None].expand_as(images))
        images = torch.where(chosen[:, None, None, None], shuffled, images)
    return images


def focus(images: torch.Tensor, settings: Augmentation, rng: torch.Generator) -> torch.Tensor:
    """Blur some of the images, sharpen some, halve the resolution of some and add noise to some.

    Parameters
    ----------
    images : torch.Tensor
        (N, 3, H, H) float32, 0..255.
    settings : Augmentation
        How often and how strongly.
    rng : torch.Generator
        Source of the randomness.

    Returns
    -------
    torch.Tensor
        Same shape and range.
    """
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    count = images.shape[0]
    images = images.clone()
    draws = torch.rand(5, count, generator=rng)
    blurred = draws[0] < settings.blur
    sharpened = ~blurred & (draws[0] < settings.blur + settings.sharpen)
    chosen = blurred | sharpened
    if chosen.any():
        sigma = MIN_SIGMA + (settings.blur_sigma - MIN_SIGMA) * draws[1]
        amount = torch.where(blurred, torch.ones(count), -draws[2])
        images[chosen] = blur(images[chosen], sigma[chosen], amount[chosen])
    coarse = draws[3] < settings.low_resolution
    if coarse.any():
        halved = avg_pool2d(images[coarse], 2)
        images[coarse] = interpolate(halved, size=images.shape[2:], mode="bilinear", align_corners=False)
    noisy = draws[4] < settings.noise
    if noisy.any():
        sigmas = settings.noise_sigma * torch.rand(int(noisy.sum()), 1, 1, 1, generator=rng)
        images[noisy] += sigmas * torch.randn(images[noisy].shape, generator=rng)
    return images.clamp_(0, 255)
