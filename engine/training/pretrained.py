"""Encoder weights of networks that were trained elsewhere: VGG16-BN, ResNet-34, Xception.

Three of the papers begin with weights from ImageNet. None come with nuclix; a user's own file (safetensors, or a state
dict that `torch.load` reads with ``weights_only=True``) is matched to the encoder layer by layer, in order.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DataError

if TYPE_CHECKING:
    import torch

SHORTCUTS = ("residual", "shortcut", "skip", "downsample")  # words in the names of layers next to the main path
# Mean and standard deviation that networks trained on ImageNet expect of RGB in 0..1 (torchvision's documentation).
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAST_STEM_LAYER = 2  # conv1 and conv2 of Xception come before its blocks, conv3 and conv4 after them
WHITE, HALF_RANGE = 1.0, 0.5  # what `normalise` subtracts and divides by, for RGB in 0..1


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution's weight with its batch norm's tensors, by the names in the file."""

    name: str
    weight: torch.Tensor
    norm: dict[str, torch.Tensor] = field(default_factory=dict)


def load_encoder(encoder: torch.nn.Module, path: Path) -> None:
    """Give an encoder the weights of a network trained on ImageNet.

    The convolutions of the main path are matched in order, those of the shortcuts likewise; what the file holds beyond
    the encoder's last layer (a classifier) is left out. The first layer is adjusted to images as nuclix normalises
    them.

    Parameters
    ----------
    encoder : torch.nn.Module
        Convolutions, each followed by batch norm (a depthwise one directly by its pointwise one).
    path : Path
        State dict: ``.safetensors``, or what ``torch.save`` wrote.

    Raises
    ------
    DataError
        If the file can't be read, has no batch norms, or its layers have other shapes; the message names the layer.
    """
    given = _file_layers(_read(path))
    for shortcut in (False, True):
        own = [pair for pair in _own_layers(encoder) if _is_shortcut(pair[0]) == shortcut]
        theirs = [layer for layer in given if _is_shortcut(layer.name) == shortcut]
        if len(theirs) < len(own):
            raise DataError(f"{path}: has {len(theirs)} convolutions where the encoder has {len(own)}")
        for (name, convolution, norm), layer in zip(own, theirs, strict=False):
            _copy(path, name, convolution, norm, layer)
    _, first, norm = next(_own_layers(encoder))
    if norm is not None:
        _adjust_input(first, norm)


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    import torch

    try:
        if path.suffix == ".safetensors":
            content: Any = _safetensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as problem:
        raise DataError(f"{path}: can't be read as a state dict: {problem}") from problem
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise DataError(f"{path}: holds no state dict (tensors by name); save `network.state_dict()`")
    return content


def _safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as problem:
        raise DataError(f"{path}: needs the package safetensors: pip install safetensors") from problem
    tensors: Mapping[str, torch.Tensor] = load_file(path)
    return {name: tensors[name] for name in sorted(tensors, key=_place)}


def _place(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names in the order of the data, which safetensors files do not keep.

    Numbers count as numbers, ``bn1`` comes right after ``conv1``, and what stands outside of blocks before them
    (``conv1``, ``conv2``) or after them (Xception's ``conv3``, ``conv4``) stays there.
    """
    top = re.match(r"(?:conv|bn)(\d+)", name)
    stage = 1 if top is None else 0 if int(top[1]) <= LAST_STEM_LAYER else 2
    parts = re.split(r"(\d+)", re.sub(r"\bbn(\d+)", r"conv\1.~", name))
    return stage, *((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _file_layers(content: Mapping[str, torch.Tensor]) -> list[_Layer]:
    """Return the convolutions of a state dict in its order, each with the batch norm whose tensors follow it."""
    layers: list[_Layer] = []
    for name, value in content.items():
        if value.ndim == 4:
            layers.append(_Layer(name, value.float()))
        elif value.ndim == 1 and layers and name.rpartition(".")[0] != layers[-1].name.rpartition(".")[0]:
            layers[-1].norm.setdefault(name.rpartition(".")[2], value.float())
    return layers


def _own_layers(
    encoder: torch.nn.Module,
) -> Iterator[tuple[str, torch.nn.Conv2d, torch.nn.BatchNorm2d | None]]:
    """Yield name, convolution and batch norm (None behind a depthwise convolution) in the order of the data."""
    from torch import nn

    modules = [pair for pair in encoder.named_modules() if isinstance(pair[1], nn.Conv2d | nn.BatchNorm2d)]
    for (name, module), (_, after) in zip(modules, [*modules[1:], ("", encoder)], strict=True):
        if isinstance(module, nn.Conv2d):
            yield name, module, after if isinstance(after, nn.BatchNorm2d) else None


def _is_shortcut(name: str) -> bool:
    return any(word in name.lower() for word in SHORTCUTS)


def _copy(
    path: Path, name: str, convolution: torch.nn.Conv2d, norm: torch.nn.BatchNorm2d | None, layer: _Layer
) -> None:
    import torch

    if layer.weight.shape != convolution.weight.shape:
        ours, theirs = tuple(convolution.weight.shape), tuple(layer.weight.shape)
        raise DataError(
            f"{path}: {layer.name} is {theirs} but the encoder's {name} is {ours}; is the recipe set to the full width?"
        )
    with torch.no_grad():
        convolution.weight.copy_(layer.weight)
        if convolution.bias is not None:
            convolution.bias.zero_()
        if norm is None:
            return
        for part in ("weight", "bias", "running_mean", "running_var"):
            if part not in layer.norm:
                raise DataError(f"{path}: no batch norm follows {layer.name}; take the network with batch norm")
            getattr(norm, part).copy_(layer.norm[part])


def _adjust_input(convolution: torch.nn.Conv2d, norm: torch.nn.BatchNorm2d) -> None:
    """Change the first layer such that it computes of (rgb - 1) / 0.5 what it computed of (rgb - mean) / deviation.

    Where its zero padding reaches, the two differ: it is white here, and was mid-grey.
    """
    import torch

    mean, deviation = (torch.tensor(values, dtype=convolution.weight.dtype) for values in IMAGENET)
    slope, offset = HALF_RANGE / deviation, (WHITE - mean) / deviation
    assert norm.running_mean is not None
    with torch.no_grad():
        norm.running_mean -= torch.einsum("oihw,i->o", convolution.weight, offset)
        convolution.weight.mul_(slope[:, None, None])
