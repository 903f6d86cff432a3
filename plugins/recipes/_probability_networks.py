"""The three networks besides the U-Net that the ISBI 2017 draft compares (section 5): BaochuanNet, FCN-8s, DeconvNet.

Like `nuclix.engine.training.unet` this module imports torch at its top; import it where it is used.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from nuclix.engine.training.receptive_field import POOLING, UP_CONVOLUTION, Layer, receptive_radius, same
from nuclix.engine.training.unet import convolution

CLASSES = 2  # background, nucleus
BAOCHUAN_LAYERS, BAOCHUAN_MAPS = 4, 8  # "4 convolutional layers where each has 8 feature maps"
BAOCHUAN_KERNEL = 5  # px; the draft is silent
BAOCHUAN_MULTIPLE = 16  # nothing is pooled, so any would do
VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # maps and convolutions of VGG16, a pooling after each
VGG_MULTIPLE = 2 ** len(VGG_STAGES)
DENSE_MAPS, DENSE_KERNEL = 4096, 7  # fc6 and fc7 of VGG16 as convolutions
DECONV_STAGES = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64, 64))  # after each unpooling
UP_TWICE, UP_EIGHT = (4, 2, 1), (16, 8, 4)  # kernel, stride and padding of FCN-8s' transposed convolutions


VGG_LAYERS = tuple(layer for _, count in VGG_STAGES for layer in (*[same(3)] * count, POOLING))
BAOCHUAN_RADIUS = receptive_radius([same(BAOCHUAN_KERNEL)] * BAOCHUAN_LAYERS, BAOCHUAN_MULTIPLE)
FCN_RADIUS = receptive_radius(
    [*VGG_LAYERS, same(DENSE_KERNEL), *(Layer(*size, up=True) for size in (UP_TWICE, UP_TWICE, UP_EIGHT))],
    VGG_MULTIPLE,
)
DECONV_RADIUS = receptive_radius(
    [
        *(*VGG_LAYERS, same(DENSE_KERNEL), same(DENSE_KERNEL)),
        *(layer for maps in DECONV_STAGES for layer in (UP_CONVOLUTION, *[same(3)] * len(maps))),
    ],
    VGG_MULTIPLE,
)


def block(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Return a convolution of any odd kernel with zero padding, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class BaochuanNet(nn.Module):
    """Four convolutions of eight maps and a classifier of each pixel: (N, 3, H, W) to (N, 2, H, W).

    The draft gives neither kernel nor padding nor non-linearity: 5 x 5, zeros, batch norm and ReLU are ours, and the
    two outputs come from a 1 x 1 convolution behind the four.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[BAOCHUAN_MAPS] * BAOCHUAN_LAYERS]
        self.layers = nn.Sequential(
            *(block(before, after, BAOCHUAN_KERNEL) for before, after in pairwise(widths)),
            nn.Conv2d(BAOCHUAN_MAPS, CLASSES, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        outputs: torch.Tensor = self.layers(image)
        return outputs


def scaled(maps: int, width: float) -> int:
    """Return a layer's number of maps at `width` times its full size, at least 1."""
    return max(1, round(maps * width))


def vgg_stages(width: float) -> nn.ModuleList:
    """Return VGG16's five groups of 3 x 3 convolutions, each with batch norm."""
    stages, inputs = nn.ModuleList(), 3
    for maps, count in VGG_STAGES:
        outputs = scaled(maps, width)
        widths = [inputs, *[outputs] * count]
        stages.append(nn.Sequential(*(convolution(*pair) for pair in pairwise(widths))))
        inputs = outputs
    return stages


def dense(width: float) -> nn.Sequential:
    """Return VGG16's fc6 and fc7 as convolutions of 7 x 7 and 1 x 1; batch norm stands for their dropout."""
    inputs, maps = scaled(VGG_STAGES[-1][0], width), scaled(DENSE_MAPS, width)
    return nn.Sequential(block(inputs, maps, DENSE_KERNEL), block(maps, maps, 1))


def bilinear(size: tuple[int, int, int]) -> nn.ConvTranspose2d:
    """Return a transposed convolution that interpolates each class' score by itself, to begin with."""
    kernel, stride, padding = size
    layer = nn.ConvTranspose2d(CLASSES, CLASSES, kernel, stride, padding, groups=CLASSES, bias=False)
    ramp = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / stride
    with torch.no_grad():
        layer.weight.copy_(torch.outer(ramp, ramp).expand_as(layer.weight))
    return layer


class FCN8s(nn.Module):
    """Fully convolutional network on VGG16 with skips from the third and fourth pooling: (N, 2, H, W) out.

    As Long, Shelhamer and Darrell (CVPR 2015) have it: scores of the seventh layer, doubled, plus those of pool4,
    doubled, plus those of pool3, enlarged eight times by a fixed bilinear kernel; the doublings are learned from
    one. Ours differs: batch norm (in place of dropout), "same" padding (in place of 100 px and a crop), `width`, and
    no weights from ImageNet. H and W must be multiples of 32.

    Parameters
    ----------
    width : float
        Share of the full number of maps in every layer.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.encoder = vgg_stages(width)
        self.dense = dense(width)
        self.score = nn.Conv2d(scaled(DENSE_MAPS, width), CLASSES, 1)
        self.score4 = nn.Conv2d(scaled(VGG_STAGES[3][0], width), CLASSES, 1)
        self.score3 = nn.Conv2d(scaled(VGG_STAGES[2][0], width), CLASSES, 1)
        self.twice, self.fourfold = bilinear(UP_TWICE), bilinear(UP_TWICE)
        self.eightfold = bilinear(UP_EIGHT).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        x, pooled = image, []
        for stage in self.encoder:
            x = max_pool2d(stage(x), 2)
            pooled.append(x)
        scores = self.twice(self.score(self.dense(x))) + self.score4(pooled[3])
        scores = self.fourfold(scores) + self.score3(pooled[2])
        outputs: torch.Tensor = self.eightfold(scores)
        return outputs


def unpool(x: torch.Tensor, places: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Put each value where its pooling had found the maximum, zeros elsewhere (`max_unpool2d`, which can't be traced).

    Parameters
    ----------
    x : (N, C, H, W) tensor
        Values.
    places : (N, C, H, W) int64 tensor
        Indices that `max_pool2d` returned.
    like : (N, any, 2 H, 2 W) tensor
        Has the height and width of the result.
    """
    height, width = like.shape[2], like.shape[3]
    flat = x.new_zeros(x.shape[0], x.shape[1], height * width).scatter(2, places.flatten(2), x.flatten(2))
    return flat.unflatten(2, (height, width))


class DeconvNet(nn.Module):
    """VGG16 and its mirror image, joined by the places of the pooled maxima alone: (N, 2, H, W) out.

    As Noh, Hong and Han (ICCV 2015) have it, no skips. Theirs narrows 224 px to one position between fc6 and its
    deconvolution; here both are 7 x 7 with padding, so that images of any multiple of 32 go through. A
    deconvolution of stride 1 is a convolution with the kernel turned round, so plain ones are used.

    Parameters
    ----------
    width : float
        Share of the full number of maps in every layer.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.encoder = vgg_stages(width)
        self.dense = dense(width)
        inputs = scaled(VGG_STAGES[-1][0], width)
        self.widen = block(scaled(DENSE_MAPS, width), inputs, DENSE_KERNEL)
        self.mirror = nn.ModuleList()
        for stage in DECONV_STAGES:
            widths = [inputs, *(scaled(maps, width) for maps in stage)]
            self.mirror.append(nn.Sequential(*(convolution(*pair) for pair in pairwise(widths))))
            inputs = widths[-1]
        self.score = nn.Conv2d(inputs, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs of a batch of normalised images."""
        x = image
        wide: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        for stage in self.encoder:
            wide.append(stage(x))
            x, found = max_pool2d(wide[-1], 2, return_indices=True)
            places.append(found)
        x = self.widen(self.dense(x))
        for stage in self.mirror:
            x = stage(unpool(x, places.pop(), wide.pop()))
        outputs: torch.Tensor = self.score(x)
        return outputs


class Nucleus(nn.Module):
    """Softmax over the two classes; keeps the probability of nucleus."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return (N, 1, H, W) of (N, 2, H, W)."""
        return outputs.softmax(1)[:, 1:]
