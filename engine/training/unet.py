"""Network blocks that recipes share: the U-Net with batch norm and what is known of its geometry.

This is the one module that imports torch at its top (its classes are torch's); import it where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from nuclix.engine.training.receptive_field import POOLING, UP_CONVOLUTION, Layer, receptive_radius, same

WHITE = 255.0
HALF_RANGE = 127.5
STEMS = (1, 2)
STEM_CONVOLUTION = Layer(4, 2, 1)


@dataclass(frozen=True, slots=True)
class UNetShape:
    """Size of a U-Net.

    Attributes
    ----------
    n_feat : int
        Features of the first convolution; every pooling doubles them (DIST paper, section IV-A).
    depth : int
        Number of poolings; 4 in the U-Net paper.
    stem : int
        1: the U-Net works at the image's own resolution, as in the paper. 2: a stride-2 convolution before it and
        a pixel shuffle after it let it work at half the resolution, at about a quarter of the cost.
    channels : int
        Output maps.
    n_feat_inner : int
        Features after the first pooling, doubled by each further one; 0 doubles `n_feat`, as in the paper.
    """

    n_feat: int = 32
    depth: int = 3
    stem: int = 2
    channels: int = 1
    n_feat_inner: int = 0

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, not {self.stem}")
        if min(self.n_feat, self.depth, self.channels) < 1:
            raise ValueError(f"n_feat, depth and channels must be positive: {self}")
        if self.n_feat_inner < 0:
            raise ValueError(f"n_feat_inner must be 0 or more, not {self.n_feat_inner}")

    @property
    def widths(self) -> list[int]:
        """Features at every resolution, from the finest to the coarsest."""
        inner = self.n_feat_inner or 2 * self.n_feat
        return [self.n_feat, *(inner * 2**level for level in range(self.depth))]

    @property
    def multiple(self) -> int:
        """Total down-sampling: inputs must be a multiple of it in height and width."""
        return int(self.stem * 2**self.depth)

    @property
    def radius(self) -> int:
        """How far from an output pixel an input pixel can still matter, in pixels, over all phases of the poolings."""
        return receptive_radius(self._layers, self.multiple)

    @property
    def margin(self) -> int:
        """`radius` rounded up to the next multiple of `multiple`."""
        return -(-self.radius // self.multiple) * self.multiple

    @property
    def _layers(self) -> list[Layer]:
        """The deepest path; the skip connections see less."""
        block = [same(3), same(3)]
        layers = [*block, *(layer for _ in range(self.depth) for layer in (POOLING, *block))]
        layers += [layer for _ in range(self.depth) for layer in (UP_CONVOLUTION, *block)]
        if self.stem == 1:
            return layers
        return [STEM_CONVOLUTION, *layers, UP_CONVOLUTION]  # the pixel shuffle


def normalise(image: torch.Tensor) -> torch.Tensor:
    """Map RGB 0..255 to -2..0, white being 0, so that a convolution's zero padding looks like background.

    Parameters
    ----------
    image : torch.Tensor
        Any shape, floating point or uint8, 0..255.

    Returns
    -------
    torch.Tensor
        Same shape, floating point.
    """
    return (image.float() - WHITE) / HALF_RANGE


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution with zero padding, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return the U-Net's block of two 3x3 convolutions."""
    return nn.Sequential(*convolution(inputs, outputs), *convolution(outputs, outputs))


class UNet(nn.Module):
    """U-Net with batch norm: (N, 3, H, W) normalised to (N, channels, H, W) raw outputs.

    H and W must be multiples of ``shape.multiple``.

    Parameters
    ----------
    shape : UNetShape
        Its size.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        widths = shape.widths
        self.stem: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Conv2d(widths[0], shape.channels, 1)
        inputs = 3
        if shape.stem == 2:
            self.stem = nn.Conv2d(inputs, widths[0], 4, stride=2, padding=1)
            self.head = nn.Sequential(nn.Conv2d(widths[0], 4 * shape.channels, 1), nn.PixelShuffle(2))
            inputs = widths[0]
        self.encoder = nn.ModuleList(
            double_convolution(before, after) for before, after in zip([inputs, *widths], widths, strict=False)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in pairs)
        self.decoder = nn.ModuleList(double_convolution(2 * fine, fine) for _, fine in pairs)
        self.concatenated = tuple(f"decoder.{level}.0" for level in range(shape.depth))  # inputs: enlarged map, skip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        x = self.stem(image)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                skips.append(x)
                x = max_pool2d(x, 2)
            x = block(x)
        for level, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x = block(torch.cat([up(x), skips[len(skips) - 1 - level]], 1))
        outputs: torch.Tensor = self.head(x)
        return outputs


class Exported(nn.Module):
    """A trained network as the model file holds it: RGB 0..255 in, finished float32 maps out.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised images.
    activation : torch.nn.Module
        Turns raw outputs into maps.
    """

    def __init__(self, network: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.activation = activation

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (N, maps, H, W) float32 of (N, 3, H, W) RGB, 0..255, uint8 or floating point."""
        maps: torch.Tensor = self.activation(self.network(normalise(image)).float())
        return maps


class ClassProbability(nn.Module):
    """Softmax over the raw outputs, of which one class becomes the map: (N, classes, H, W) to (N, 1, H, W).

    Parameters
    ----------
    index : int
        The class.
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the class's probability."""
        return torch.softmax(outputs, 1)[:, self.index : self.index + 1]
