"""What a model file says of itself: its network's input and output, its patch, its classes, how nuclei are found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from nuclix.engine.geometry import Scale

USUAL_PATCH_PX = 1024  # larger ones bring nothing on a CPU, whose caches they outgrow
RGB, BGR = "RGB", "BGR"
BYTES, UNIT = "0-255", "0-1"
NCHW, NHWC = "NCHW", "NHWC"
NONE, SIGMOID, SOFTMAX = "none", "sigmoid", "softmax"
_CHOICES = {
    "dtype": ("uint8", "float32"),
    "channels": (RGB, BGR),
    "range": (BYTES, UNIT),
    "layout": (NCHW, NHWC),
}


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What a network takes.

    Attributes
    ----------
    dtype : str
        uint8 or float32.
    channels : str
        RGB or BGR.
    range : str
        0-255 or 0-1, before `mean` and `std`.
    mean, std : tuple of float
        Taken off and divided by, of each channel in the order of `channels`; in units of `range`. Empty: neither.
    layout : str
        NCHW or NHWC; of the output too.

    Raises
    ------
    ValueError
        If a value is not one of these.
    """

    dtype: str = "uint8"
    channels: str = RGB
    range: str = BYTES
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = NCHW

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values and not (len(values) == 3 and all(map(math.isfinite, values))):
                raise ValueError(f"{name} must be three finite numbers, not {list(values)}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be positive, not {list(self.std)}")
        if self.dtype == "uint8" and (self.range == UNIT or self.mean or self.std):
            raise ValueError("uint8 has the range 0-255, without mean and std: set dtype to float32")


@dataclass(frozen=True, slots=True)
class OutputPart:
    """Channels of a network's output, in the order of the card's maps.

    Attributes
    ----------
    key : str
        Name in a dictionary, or number in a tuple; empty for a tensor (of a tuple, the first).
    activation : str
        none, sigmoid or softmax (over all channels of this output).
    channels : tuple of int
        Which channels, counted from 0; empty for all.

    Raises
    ------
    ValueError
        If a value is not one of these.
    """

    key: str = ""
    activation: str = NONE
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in (NONE, SIGMOID, SOFTMAX):
            raise ValueError(f"activation must be none, sigmoid or softmax, not {self.activation!r}")
        if any(channel < 0 for channel in self.channels):
            raise ValueError(f"channels count from 0, not {list(self.channels)}")


@dataclass(frozen=True, slots=True)
class PatchShape:
    """A network's patch in pixels at its scale: `size` goes in, all but `margin` on every side comes out.

    `size` and `margin` are multiples of `multiple` (the network's total down-sampling), so that every patch of
    the fixed grid meets the pooling grid in the same phase. `dynamic` says that the network also takes smaller patches,
    not necessarily square, of multiples of `multiple`, and gives the same maps for them but for what the margin allows.
    """

    size: int
    margin: int
    multiple: int = 16
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"`multiple` must be at least 1 px, not {self.multiple}")
        if self.valid <= 0 or self.margin < 0:
            raise ValueError(f"a patch of {self.size} px has no middle inside a margin of {self.margin} px")
        if self.size % self.multiple or self.margin % self.multiple:
            raise ValueError(f"patch {self.size} and margin {self.margin} must be multiples of {self.multiple}")

    @classmethod
    def around(cls, reach: int, multiple: int) -> Self:
        """Return the usual patch of a network that sees `reach` px around a pixel: at most half its edge is margin."""
        margin = -(-reach // multiple) * multiple
        return cls(-(-max(USUAL_PATCH_PX, 4 * margin) // multiple) * multiple, margin, multiple, dynamic=True)

    @property
    def valid(self) -> int:
        """Edge of the middle that is used."""
        return self.size - 2 * self.margin


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """A class of objects: its name and RGB colour in QuPath."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model file says of itself (``nuclix.json`` inside it, or a TOML file next to it).

    Attributes
    ----------
    name, method : str
        The model's name and its recipe.
    scale : Scale
        The um/px that it was trained at.
    patch : PatchShape
        The patch that it works on.
    maps : tuple of str
        Names of the output channels.
    postprocessor : str
        Entry-point name of the post-processor.
    parameters : mapping
        The post-processor's parameters.
    classes : tuple of ObjectClass
        Classes of the objects.
    training, scores : mapping
        Data, licence and settings of the training; validation scores.
    class_maps : tuple of str
        Names of the output channels after `maps`, whose votes decide the classes: one for each class, one of the
        background before them, or a single one of class numbers.
    input, outputs : InputFormat, tuple of OutputPart
        What the network takes, and where its channels are found; by default RGB bytes and one tensor.
    stride, crop : int
        Pixels between the network's output pixels, and those that it leaves out on every side.
    margin_test : mapping
        What a margin smaller than the network's reach changes, as ``nuclix bench margin`` has measured it: reference
        margin, nuclei, nuclei lost and changed, AJI. Empty for a margin that changes nothing.
    runtimes : mapping
        Networks for other runtimes inside the model file: by runtime and number format, their checksums; and under
        ``torchscript`` the fingerprint of the network that they were made from.
    quantisation : mapping
        How an int8 network was made, and by how much its maps differ from those of float32.
    """

    name: str
    method: str
    scale: Scale
    patch: PatchShape
    maps: tuple[str, ...]
    postprocessor: str
    parameters: Mapping[str, Any]
    classes: tuple[ObjectClass, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    class_maps: tuple[str, ...] = ()
    input: InputFormat = field(default_factory=InputFormat)
    outputs: tuple[OutputPart, ...] = ()
    stride: int = 1
    crop: int = 0
    margin_test: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, Any] = field(default_factory=dict)
    quantisation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the network takes RGB bytes and gives the channels as one tensor of the patch's size."""
        return self.input == InputFormat() and not self.outputs and self.stride == 1 and self.crop == 0

    @property
    def channels(self) -> int:
        """Number of the network's output channels."""
        return len(self.maps) + len(self.class_maps)
