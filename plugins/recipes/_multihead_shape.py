"""Size and reach of the multi-head networks; what can be said of them without torch."""

from __future__ import annotations

from dataclasses import dataclass

from nuclix.engine.training.receptive_field import POOLING, UP_CONVOLUTION, Layer, receptive_radius, same

ARCHITECTURES = ("unet", "xception", "inception-se")
ACTIVATIONS = ("selu", "relu", "elu")
UNET_FEATURES = (64, 128, 256, 512, 1024)  # U-Net paper, Fig. 1
STEM_FEATURES = (32, 64)  # of Xception's stem, then of what follows it: Xception paper, Fig. 5
ENTRY_FEATURES = (128, 256, 728)
EXIT_FEATURES = (1024, 1536, 2048)
FINEST_FEATURES = 64  # Xception has no features at full resolution: as many as the U-Net has there
MULTIPLE = 32  # section 5.6
BLOCK = 2  # 3x3 convolutions in every block of every decoder and encoder here
MIDDLE = 3  # separable convolutions in a block of the middle flow
STRIDED = Layer(3, 2, 1)  # a pooling, or a convolution, of 3x3 with a stride of 2
FEWEST, STEP = 8, 8  # features come in eights, which convolution kernels like


@dataclass(frozen=True, slots=True)
class MultiHeadShape:
    """Size of a multi-head network.

    Attributes
    ----------
    architecture : str
        unet, xception or inception-se (section 5.2).
    width : float
        Factor on all numbers of features; 1 is that of the U-Net and Xception papers.
    middle : int
        Blocks of Xception's middle flow; 8 in its paper.
    squeeze : int
        Edge, in cells of its level, of the window that squeeze-and-excitation averages over; 0 is all there is.
    activation : str
        selu, relu or elu (section 5.4).
    channels : int
        Output maps.
    """

    architecture: str
    width: float
    middle: int
    squeeze: int
    activation: str
    channels: int = 3

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {self.architecture!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        if not 0 < self.width <= 1:
            raise ValueError(f"width must be over 0 and at most 1, not {self.width}")
        if self.middle < 0:
            raise ValueError(f"middle must be at least 0, not {self.middle}")
        if self.squeeze < 0 or (self.squeeze and self.squeeze % 2 == 0):
            raise ValueError(f"squeeze must be 0 or odd, not {self.squeeze}")

    def features(self, count: int) -> int:
        """Return how many features stand for `count` of the full-width network."""
        return max(FEWEST, round(count * self.width / STEP) * STEP)

    @property
    def sees_whole_patch(self) -> bool:
        """Whether every output pixel depends on the whole patch, so that no margin hides where it ends."""
        return self.architecture == "inception-se" and self.squeeze == 0

    @property
    def radius(self) -> int:
        """How far from an output pixel an input pixel can still matter, in pixels, over all phases of the poolings.

        An average over the whole patch, which has no such limit, is left out.
        """
        return receptive_radius(self._layers, MULTIPLE)

    @property
    def margin(self) -> int:
        """`radius` rounded up to the next multiple of 32."""
        return -(-self.radius // MULTIPLE) * MULTIPLE

    @property
    def _layers(self) -> list[Layer]:
        """The deepest path."""
        plain = self.architecture == "unet"
        depth = len(UNET_FEATURES) - 1 if plain else len(STEM_FEATURES) + len(ENTRY_FEATURES)
        block = [same(3), same(3)]
        gate = [same(self.squeeze)] if self.architecture == "inception-se" and self.squeeze else []
        layers: list[Layer] = []
        for level in range(depth):
            layers += [*block, POOLING] if plain else [*self._before(level, depth), STRIDED]
        layers += block
        for _ in range(depth):
            layers += [UP_CONVOLUTION, *block, *gate]
        return layers

    def _before(self, level: int, depth: int) -> list[Layer]:
        """Return what Xception computes at `level` before it halves the resolution."""
        if level == 0:  # nothing: the stem's first convolution halves the image
            return []
        stem = 1 if level == 1 else 0
        middle = MIDDLE * self.middle if level == depth - 1 else 0
        return [same(3)] * (BLOCK + stem + middle)
