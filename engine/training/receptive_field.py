"""How far a network sees: what a layer does to coordinates, and the reach of a path of layers. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer does to coordinates along one axis.

    Attributes
    ----------
    kernel, stride, padding : int
        As torch has them.
    up : bool
        Transposed: the stride enlarges. A pixel shuffle is a kernel as large as its stride; bilinear enlargement by 2
        is a kernel of 4 with stride 2 and padding 1.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    up: bool = False

    def seen(self, low: int, high: int) -> tuple[int, int]:
        """Return the first and last input coordinate that the outputs `low` to `high` depend on."""
        reach = self.kernel - 1
        if self.up:
            return -((reach - self.padding - low) // self.stride), (high + self.padding) // self.stride
        return low * self.stride - self.padding, high * self.stride - self.padding + reach


def same(kernel: int, dilation: int = 1) -> Layer:
    """Return a convolution that keeps the size, of an odd kernel."""
    reach = dilation * (kernel - 1)
    return Layer(reach + 1, padding=reach // 2)


POOLING = Layer(2, 2)
UP_CONVOLUTION = Layer(2, 2, up=True)


def receptive_radius(layers: Sequence[Layer], multiple: int) -> int:
    """Return how far from an output pixel an input pixel can matter, over all phases of the poolings.

    Parameters
    ----------
    layers : sequence of Layer
        The path that sees farthest, in the order of the data.
    multiple : int
        Total down-sampling.

    Returns
    -------
    int
        In pixels of the input.

    Examples
    --------
    >>> receptive_radius([same(3), same(3)], 1)
    2
    """
    reach = 0
    for pixel in range(multiple):
        low, high = pixel, pixel
        for layer in reversed(layers):
            low, high = layer.seen(low, high)
        reach = max(reach, pixel - low, high - pixel)
    return reach
