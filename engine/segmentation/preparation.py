"""Prepare what a worker needs before its first slide: the post-processor and the network on its device."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine import registry
from nuclix.engine.contracts import ModelCard, PostProcessor
from nuclix.engine.errors import DeviceError, DeviceMemoryError, ModelError, UsageError
from nuclix.engine.parameters import assignments, from_mapping
from nuclix.engine.run_config import TF32, RunConfig

if TYPE_CHECKING:
    from nuclix.engine.inference.model_file import LoadedModel
    from nuclix.engine.inference.patch_predictor import PatchPredictor
    from nuclix.engine.inference.runtime import ArrayRuntime
    from nuclix.engine.model_card import PatchShape


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


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """A model, and its network on the device of a run."""

    model: LoadedModel
    predictor: PatchPredictor


def open_network(
    path: Path, config: RunConfig, threads: int | None = None, patch: PatchShape | None = None
) -> OpenNetwork:
    """Load a model and put its network onto the run's device, in the runtime that suits both.

    Parameters
    ----------
    path : Path
        The model file.
    config : RunConfig
        The options of the run.
    threads : int, optional
        As for `make_context`.
    patch : PatchShape, optional
        In place of the card's.

    Raises
    ------
    ModelError, UsageError, DeviceError, DeviceMemoryError
        If the network or the device can't be used.
    """
    from nuclix.engine.inference.device import use_threads
    from nuclix.engine.inference.runtime import array_runtime, resolve_runtime

    name = resolve_runtime(path, config.runtime, config.device, config.precision)
    runtime = array_runtime(name)
    if runtime is not None:
        return _in_arrays(path, config, runtime, (threads, patch))
    if threads is not None:
        use_threads(threads)
    return _in_torch(path, config, name, patch)


def _in_arrays(
    path: Path, config: RunConfig, runtime: type[ArrayRuntime], wanted: tuple[int | None, PatchShape | None]
) -> OpenNetwork:
    """Open a network in a runtime that needs no PyTorch."""
    from nuclix.engine.inference.array_predictor import ArrayPredictor
    from nuclix.engine.inference.device import is_cpu, thread_share
    from nuclix.engine.inference.model_file import LoadedModel, read_model
    from nuclix.engine.inference.patch_predictor import CPU_BATCH
    from nuclix.engine.inference.runtime import ArraySettings

    if config.device != "auto" and not is_cpu(config.device):
        raise DeviceError(f"--runtime {config.runtime} runs on the CPU, not on {config.device}: add --device cpu")
    file, (threads, patch) = read_model(path), wanted
    card = replace(file.card, patch=patch or file.card.patch)
    settings = ArraySettings(
        runtime.precision(config.precision),
        threads or thread_share(1),
        config.batch or CPU_BATCH,
        config.tta,
        config.trust_model,
    )
    queue = runtime.open(path, file.content, card, settings)
    return OpenNetwork(LoadedModel(card, None, file.sha256), ArrayPredictor(card, queue, settings))


def _in_torch(path: Path, config: RunConfig, runtime: str, patch: PatchShape | None) -> OpenNetwork:
    """Open a network in PyTorch, or one that a model source wraps for it."""
    from nuclix.engine.inference.device import choose_device, choose_precision, prepare_device
    from nuclix.engine.inference.model_file import load_model
    from nuclix.engine.inference.model_source import TORCH
    from nuclix.engine.inference.predictor import InferenceSettings, Predictor, default_batch

    device, tf32 = choose_device(config.device), config.precision == TF32
    # TorchScript is loaded on the CPU and moved by its predictor.
    model = load_model(path, "cpu" if runtime == TORCH else str(device), runtime=runtime, trust=config.trust_model)
    model = replace(model, card=replace(model.card, patch=patch or model.card.patch))
    prepare_device(device, tf32=tf32)
    precision = choose_precision(config.precision, device)
    batch = config.batch or default_batch(device)
    return OpenNetwork(model, Predictor(model, InferenceSettings(device, precision, batch, config.tta, tf32)))


def try_network(predictor: PatchPredictor, config: RunConfig) -> tuple[str, ...]:
    """Try a network; return warnings for the records of its slides.

    Networks that come with a package are not tried on a CPU: their package's tests have done that, and a run starts
    sooner.

    Raises
    ------
    ModelError, DeviceError
        If the network can't be used.
    """
    from nuclix.engine.inference.model_check import check_network

    notes: list[str] = []
    with suppress(DeviceMemoryError):  # the first slide takes a smaller batch, or says what is wrong
        if predictor.device.type == "cuda":
            predictor.warm_up()
        if config.model not in registry.names(registry.WEIGHTS):
            notes = check_network(predictor)
    return tuple(notes)
