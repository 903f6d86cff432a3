"""The encoder-decoder of Mercadier et al., 2019, section 2.1: a U-Net with zero padding that normalises last."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from nuclix.engine.training.unet import UNetShape


def normalised_last(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution with zero padding, ReLU, and batch norm after that (section 2.1)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(outputs),
    )


def twice(inputs: int, outputs: int) -> nn.Sequential:
    """Return two such convolutions."""
    return nn.Sequential(*normalised_last(inputs, outputs), *normalised_last(outputs, outputs))


class EncoderDecoder(nn.Module):
    """Encoder-decoder with skip connections: (N, 3, H, W) normalised to (N, classes, H, W) raw outputs.

    Parameters
    ----------
    shape : UNetShape
        Its size, with stem 1; H and W must be multiples of ``shape.multiple``.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        widths = [shape.n_feat * 2**level for level in range(shape.depth + 1)]
        self.encoder = nn.ModuleList(twice(before, after) for before, after in zip([3, *widths], widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in pairs)
        self.decoder = nn.ModuleList(twice(2 * fine, fine) for _, fine in pairs)
        self.head = nn.Conv2d(widths[0], shape.channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        x = image
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                skips.append(x)
                x = max_pool2d(x, 2)
            x = block(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], 1))
        outputs: torch.Tensor = self.head(x)
        return outputs
