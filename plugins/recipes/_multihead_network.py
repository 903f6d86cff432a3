"""The networks of the multi-head recipe: U-Net, Xception encoder, Inception and squeeze-and-excitation decoder.

Like `nuclix.engine.training.unet` this module imports torch at its top; import it where it is used.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from nuclix.plugins.recipes._multihead_shape import (
    ENTRY_FEATURES,
    EXIT_FEATURES,
    FINEST_FEATURES,
    STEM_FEATURES,
    UNET_FEATURES,
    MultiHeadShape,
)

REDUCTION = 16  # r of section 5.2.3: the squeeze-and-excitation paper's choice
FEWEST_SQUEEZED = 4  # but a narrow network keeps at least so many
BRANCHES = 4  # of the Inception module


def build(shape: MultiHeadShape) -> nn.Module:
    """Return a fresh network with Glorot's weights [10]: (N, 3, H, W) normalised to (N, channels, H, W) raw outputs.

    H and W must be multiples of 32.
    """
    network = UShape(shape)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return network


class UShape(nn.Module):
    """An encoder, a decoder of as many levels with the encoder's features next to its own, and one 1x1 head.

    Parameters
    ----------
    shape : MultiHeadShape
        Says which encoder and decoder, and their size.
    """

    def __init__(self, shape: MultiHeadShape) -> None:
        super().__init__()
        plain = shape.architecture == "unet"
        self.encoder = plain_encoder(shape) if plain else xception_encoder(shape)
        widths = encoder_features(shape)
        ours = widths if plain else [shape.features(FINEST_FEATURES), *widths[1:]]
        block = inception_se if shape.architecture == "inception-se" else double_convolution
        self.up = nn.ModuleList(up_convolution(coarse, fine, shape) for fine, coarse in pairwise(ours))
        self.decoder = nn.ModuleList(
            block(fine + skip, fine, shape) for fine, skip in zip(ours[:-1], widths[:-1], strict=True)
        )
        self.head = nn.Conv2d(ours[0], shape.channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        x = image
        skips: list[torch.Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(x)
            if level < len(self.encoder) - 1:
                skips.append(x)
        for level in range(len(self.decoder) - 1, -1, -1):
            x = self.decoder[level](torch.cat([self.up[level](x), skips[level]], 1))
        outputs: torch.Tensor = self.head(x)
        return outputs


def encoder_features(shape: MultiHeadShape) -> list[int]:
    """Return the features that the encoder hands over, from full resolution down.

    Xception halves its input in its first convolution: what it hands over at full resolution is the image itself
    (the paper is silent about it).
    """
    if shape.architecture == "unet":
        return [shape.features(count) for count in UNET_FEATURES]
    return [3, *(shape.features(count) for count in (STEM_FEATURES[-1], *ENTRY_FEATURES, EXIT_FEATURES[-1]))]


def activation(shape: MultiHeadShape) -> nn.Module:
    """Return the activation function that the network uses throughout."""
    kinds = {"selu": nn.SELU, "relu": nn.ReLU, "elu": nn.ELU}
    return kinds[shape.activation]()


def convolution(inputs: int, outputs: int, shape: MultiHeadShape, edge: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with zero ("same") padding, batch norm and activation (section 5.2.1)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, edge, stride, padding=edge // 2, bias=False),
        nn.BatchNorm2d(outputs),
        activation(shape),
    )


def double_convolution(inputs: int, outputs: int, shape: MultiHeadShape) -> nn.Sequential:
    """Return the U-Net's block of two 3x3 convolutions."""
    return nn.Sequential(*convolution(inputs, outputs, shape), *convolution(outputs, outputs, shape))


def up_convolution(inputs: int, outputs: int, shape: MultiHeadShape) -> nn.Sequential:
    """Return the transposed convolution that doubles the resolution, with batch norm and activation."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False),
        nn.BatchNorm2d(outputs),
        activation(shape),
    )


def plain_encoder(shape: MultiHeadShape) -> nn.ModuleList:
    """Return the U-Net's levels (section 5.2.1)."""
    widths = [shape.features(count) for count in UNET_FEATURES]
    first = double_convolution(3, widths[0], shape)
    rest = (
        nn.Sequential(nn.MaxPool2d(2), *double_convolution(fine, coarse, shape)) for fine, coarse in pairwise(widths)
    )
    return nn.ModuleList([first, *rest])


def xception_encoder(shape: MultiHeadShape) -> nn.ModuleList:
    """Return Xception's flows (section 5.2.2; Xception paper, Fig. 5) cut where the resolution halves: five times.

    Padding is "same" throughout. The first level is the image as it is.
    """
    stem, first = (shape.features(count) for count in STEM_FEATURES)
    entry = [shape.features(count) for count in ENTRY_FEATURES]
    exits = [shape.features(count) for count in EXIT_FEATURES]
    middle = [Middle(entry[2], shape) for _ in range(shape.middle)]
    return nn.ModuleList(
        [
            nn.Identity(),
            nn.Sequential(*convolution(3, stem, shape, stride=2), *convolution(stem, first, shape)),
            Reduction((first, entry[0], entry[0]), shape, activated=False),
            Reduction((entry[0], entry[1], entry[1]), shape),
            nn.Sequential(Reduction((entry[1], entry[2], entry[2]), shape), *middle),
            nn.Sequential(
                Reduction((entry[2], entry[2], exits[0]), shape),
                *separable(exits[0], exits[1]),
                activation(shape),
                *separable(exits[1], exits[2]),
                activation(shape),
            ),
        ]
    )


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Return a depthwise 3x3 and a pointwise convolution with nothing between them, and batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Reduction(nn.Module):
    """A block of Xception's entry or exit flow: two separable convolutions and a pooling, next to a strided residual.

    Parameters
    ----------
    widths : tuple of int
        Features before, between and after the two convolutions.
    shape : MultiHeadShape
        Says the activation.
    activated : bool
        Whether an activation comes first; not in the first block, whose input has had one.
    """

    def __init__(self, widths: tuple[int, int, int], shape: MultiHeadShape, activated: bool = True) -> None:
        super().__init__()
        before, between, after = widths
        self.main = nn.Sequential(
            *([activation(shape)] if activated else []),
            *separable(before, between),
            activation(shape),
            *separable(between, after),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        # A 1x1 convolution of stride 2 in two steps: in one, PyTorch 2.13 crashes with 8 features, channels last.
        self.residual = nn.Sequential(
            nn.MaxPool2d(1, stride=2), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, after, H / 2, W / 2) of (N, before, H, W)."""
        outputs: torch.Tensor = self.main(x) + self.residual(x)
        return outputs


class Middle(nn.Module):
    """A block of Xception's middle flow: three separable convolutions next to the identity."""

    def __init__(self, width: int, shape: MultiHeadShape) -> None:
        super().__init__()
        self.main = nn.Sequential(*(part for _ in range(3) for part in (activation(shape), *separable(width, width))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        outputs: torch.Tensor = x + self.main(x)
        return outputs


def inception_se(inputs: int, outputs: int, shape: MultiHeadShape) -> nn.Sequential:
    """Return the block of Fig. 3 after the transposed convolution: multi-scale convolutions, then the SE block."""
    return nn.Sequential(Inception(inputs, outputs, shape), SqueezeExcitation(outputs, shape.squeeze))


class Inception(nn.Module):
    """Convolutions of several sizes side by side (section 5.2.3).

    The paper's figure does not say the sizes; these are the four branches of the Inception papers: 1x1, 3x3, 5x5 as
    two 3x3 ([12], Fig. 5), and 1x1 of an average over 3x3, each a quarter of the output and behind a 1x1 convolution
    that narrows the input.
    """

    def __init__(self, inputs: int, outputs: int, shape: MultiHeadShape) -> None:
        super().__init__()
        part = outputs // BRANCHES
        self.point = convolution(inputs, part, shape, edge=1)
        self.near = nn.Sequential(*convolution(inputs, part, shape, edge=1), *convolution(part, part, shape))
        self.wide = nn.Sequential(*convolution(inputs, part, shape, edge=1), *double_convolution(part, part, shape))
        self.mean = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
            *convolution(inputs, part, shape, edge=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, H, W) of (N, inputs, H, W)."""
        return torch.cat([self.point(x), self.near(x), self.wide(x), self.mean(x)], 1)


class SqueezeExcitation(nn.Module):
    """Weigh every feature by what all features are on average (section 5.2.3; Hu et al., eq. 2 and 3).

    Parameters
    ----------
    width : int
        Features.
    window : int
        Edge of the square around each pixel that is averaged over, clipped where the patch ends; 0 averages over the
        whole patch, as in the paper.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        squeezed = max(FEWEST_SQUEEZED, width // REDUCTION)
        self.window = window
        self.excitation = nn.Sequential(
            nn.Conv2d(width, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        if self.window:
            mean = avg_pool2d(x, self.window, stride=1, padding=self.window // 2, count_include_pad=False)
        else:
            mean = x.mean((2, 3), keepdim=True)
        outputs: torch.Tensor = x * self.excitation(mean)
        return outputs
