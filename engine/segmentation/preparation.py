"""Prepare what a worker needs before its first slide: the post-processor and the network on its device."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nuclix.engine import registry
from nuclix.engine.contracts import ModelCard, PostProcessor
from nuclix.engine.errors import DeviceMemoryError, ModelError, UsageError
from nuclix.engine.parameters import assignments, from_mapping
from nuclix.engine.run_config import TF32, RunConfig

if TYPE_CHECKING:
    from nuclix.engine.inference.model_file import LoadedModel
    from nuclix.engine.inference.predictor import Predictor


def post_processor(card: ModelCard, config: RunConfig, where: str) -> PostProcessor:
    """Return a model's post-processor with the card's parameters and those that the run sets.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    config : RunConfig
        The options of the run; `set` goes before the card's parameters.
    where : str
        The model, for messages.

    Raises
    ------
    ModelError
        If the card's parameters do not fit, or post-processor and network do not fit each other.
    UsageError
        If ``--set`` names no parameter, or a value is not allowed.
    PluginError
        If there is no such post-processor.
    """
    name = card.postprocessor
    kind: Any = registry.load(registry.POSTPROCESSORS, name)
    post: PostProcessor = from_mapping(kind, card.parameters, f"{where}: parameters of {name}", ModelError)
    if config.set:
        values = assignments(config.set, kind, f"--set, post-processor {name}")
        post = from_mapping(kind, {**card.parameters, **values}, f"--set, post-processor {name}", UsageError)
    if tuple(post.maps) != tuple(card.maps):
        raise ModelError(
            f"{where}: gives the maps {', '.join(card.maps)}; its post-processor {name} takes {', '.join(post.maps)}: "
            "name them so, in this order (class maps go into class_maps)"
        )
    if config.tta and getattr(post, "has_directions", False):
        raise ModelError(
            f"{where}: the maps of {name} hold directions, which --tta would average over mirror images: run without it"
        )
    if 2 * post.context > card.patch.valid:
        raise ModelError(
            f"{where}: its post-processor {name} looks {post.context} px around a pixel, more than half of the "
            f"{card.patch.valid} px that a patch gives; use larger patches"
        )
    return post


def prepare_predictor(model: LoadedModel, config: RunConfig) -> tuple[Predictor, tuple[str, ...]]:
    """Put the network onto the run's device and try it.

    Networks that come with a package are not tried on a CPU: their package's tests have done that, and a run starts
    sooner.

    Returns
    -------
    Predictor, tuple of str
        The network on its device; warnings for the records of its slides.

    Raises
    ------
    ModelError, UsageError, DeviceError, DeviceMemoryError
        If the network or the device can't be used.
    """
    from nuclix.engine.inference.device import choose_device, choose_precision, prepare_device
    from nuclix.engine.inference.model_check import check_network
    from nuclix.engine.inference.predictor import InferenceSettings, Predictor, default_batch

    device, tf32 = choose_device(config.device), config.precision == TF32
    prepare_device(device, tf32=tf32)
    precision = choose_precision(config.precision, device)
    batch = config.batch or default_batch(device)
    predictor = Predictor(model, InferenceSettings(device, precision, batch, config.tta, tf32))
    notes: list[str] = []
    with suppress(DeviceMemoryError):  # the first slide takes a smaller batch, or says what is wrong
        if device.type == "cuda":
            predictor.warm_up()
        if config.model not in registry.names(registry.WEIGHTS):
            notes = check_network(predictor)
    return predictor, tuple(notes)
