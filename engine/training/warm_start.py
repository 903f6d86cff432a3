"""First weights of a training run from an earlier one: from its checkpoint, or from a finished model file.

A model file has no batch norms: they are folded into the convolutions before them. Here they are restored, such that
the network computes what the model computes and can be trained further.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import DataError, ModelError
from nuclix.engine.training.state import load_average

if TYPE_CHECKING:
    import torch

TORCHSCRIPT_MEMBER = "constants.pkl"  # in every TorchScript file, in no checkpoint
PREFIX = "network."  # of the trained network's weights inside `Exported`


def initialise(network: torch.nn.Module, path: Path, images: Callable[[], torch.Tensor]) -> None:
    """Give a network the weights of an earlier training run.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised images. It may be wider than the earlier network or have more outputs: what the earlier one
        did not have keeps its fresh weights, and begins without influence on the outputs that it had.
    path : Path
        A checkpoint (its averaged weights are taken) or a model file of the same architecture.
    images : callable
        Returns a normalised batch (N, 3, H, W) of training images, from which the statistics of batch norms are taken
        where `path` is a model file.

    Raises
    ------
    DataError
        If the file can't be read or holds another network's weights.
    """
    if not is_torchscript(path):
        load_average(network, path)
        return
    weights = model_weights(path)
    concatenated = set(getattr(network, "concatenated", ()))
    names = [name for name, _, _ in _layers(network)]
    try:
        unused = sorted(name for name in weights if name.rpartition(".")[0] not in names)
        if unused:
            raise DataError(f"this network has no place for {unused[0]}")
        for name in names:
            _fill(network.get_submodule(name), name, weights, name in concatenated)
    except DataError as problem:
        raise DataError(f"{path}: holds the weights of another network: {problem}") from problem
    _restore_norms(network, weights, images())


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript model; raise `DataError` where it is no zip file, as a checkpoint is."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{TORCHSCRIPT_MEMBER}") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path}: neither a checkpoint nor a model file: {problem}") from problem


def model_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a model file by their names in the trained network."""
    from nuclix.engine.inference.model_file import load_model

    try:
        state = load_model(path).module.state_dict()
    except ModelError as problem:
        raise DataError(str(problem)) from problem
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def _layers(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, torch.nn.Module | None]]:
    """Yield the name of each layer with weights, the layer, and the batch norm that follows it in its sequence."""
    from itertools import pairwise

    from torch import nn

    norms = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            for (first, before), (_, after) in pairwise(module.named_children()):
                if isinstance(after, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                    norms[f"{name}.{first}"] = after
    followers = set(norms.values())
    for name, module in network.named_modules():
        if module not in followers and next(module.parameters(recurse=False), None) is not None:
            yield name, module, norms.get(name)


def _fill(layer: torch.nn.Module, name: str, weights: Mapping[str, torch.Tensor], concatenated: bool) -> None:
    """Copy a layer's weights into the first of its channels; raise `DataError` where they are missing or do not fit."""
    import torch

    with torch.no_grad():
        for part, own in layer.named_parameters(recurse=False):
            given = weights.get(f"{name}.{part}")
            if given is None:
                raise DataError(f"the model file has no {name}.{part}")
            swap = part == "weight" and isinstance(layer, torch.nn.ConvTranspose2d)
            place = own.transpose(0, 1) if swap else own
            value = given.transpose(0, 1) if swap else given
            if value.ndim != place.ndim or any(a > b for a, b in zip(value.shape, place.shape, strict=True)):
                raise DataError(f"{name}.{part} is {tuple(given.shape)} in the model file, here {tuple(own.shape)}")
            _put(place, value, concatenated)


def _put(place: torch.Tensor, value: torch.Tensor, concatenated: bool) -> None:
    """Copy weights (outputs, inputs, ...) into a larger tensor; inputs that are new do not count for old outputs."""
    outputs = len(value)
    if value.ndim == 1:
        place[:outputs] = value
        return
    inputs, wide = value.shape[1], place.shape[1]
    columns = list(range(inputs))
    if concatenated:  # two maps side by side, each of which may have grown
        half = inputs // 2
        columns = [*range(half), *range(wide // 2, wide // 2 + inputs - half)]
    place[:outputs] = 0
    place[:outputs, columns] = value


def _restore_norms(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> None:
    """Set every folded batch norm so that it adds the bias that it was folded into and nothing else.

    With the mean m and the variance v of what comes in, a scale of sqrt(v + eps) and a shift of m + b give x + b.
    """
    import torch

    norms = [(name, norm) for name, _, norm in _layers(network) if norm is not None]
    hooks = []
    for name, norm in norms:

        def measure(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
            _restore(module, inputs[0].float(), weights[f"{name}.bias"])

        hooks.append(norm.register_forward_pre_hook(measure))
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(images)
    network.train(was_training)
    for hook in hooks:
        hook.remove()


def _restore(norm: torch.nn.Module, inputs: torch.Tensor, bias: torch.Tensor) -> None:
    """Set one batch norm from the inputs that it is about to see; channels beyond `bias` are new and stay as made."""
    import torch

    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    variance, mean = torch.var_mean(inputs, (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    known = len(bias)
    norm.weight[:known] = (variance[:known] + norm.eps).sqrt()
    norm.bias[:known] = bias + mean[:known]
