"""Time the network alone: patch sizes, batches, number formats and runtimes, without slide and post-processing."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import DeviceMemoryError, NuclixError
from nuclix.engine.inference.device import choose_device, choose_precision, prepare_device
from nuclix.engine.inference.model_file import LoadedModel, find_model, load_model
from nuclix.engine.inference.model_source import choose_source
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.model_card import PatchShape
from nuclix.engine.run_config import TF32

if TYPE_CHECKING:
    import torch

_WARM_UP_PASSES = 3  # as in a run: two that TorchScript profiles, one that it optimises
_PIXELS_PER_MPX = 1e6


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried; every combination is.

    Attributes
    ----------
    model : str
        Installed model or model file.
    device : str
        As ``--device``.
    sizes : tuple of int
        Edges of patches in pixels; empty for the model's own.
    batches : tuple of int
        Patches a forward pass.
    precisions : tuple of str
        As ``--precision``.
    runtimes : tuple of str
        As ``--runtime``.
    repeat : int
        Forward passes that are timed, of each in turn.
    """

    model: str
    device: str
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    runtimes: tuple[str, ...]
    repeat: int


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """Time of one combination.

    Attributes
    ----------
    runtime, precision : str
        What computed, and in which arithmetic.
    size, batch : int
        Edge of a patch in pixels, patches a pass.
    seconds, cpu_seconds : float
        Median wall time of a pass, and smallest time of all CPU threads.
    mpx_per_second : float
        Pixels that go in, a second.
    useful_mpx_per_second : float
        Pixels within the margin, a second.
    problem : str
        Why there are no times; empty where there are.
    """

    runtime: str
    precision: str
    size: int
    batch: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    mpx_per_second: float = 0.0
    useful_mpx_per_second: float = 0.0
    problem: str = ""


def time_network(sweep: Sweep) -> list[NetworkTime]:
    """Time every combination; passes of all combinations alternate, so that other load falls on each alike.

    Raises
    ------
    ModelError, UsageError, DeviceError
        If the model can't be loaded, or the device does not exist.
    """
    cases = list(_cases(sweep))
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    for _ in range(sweep.repeat):
        for spent, case in zip(times, cases, strict=True):
            if case.run is not None:
                spent.append(_timed(case.run))
    return [_figures(case, spent) for case, spent in zip(cases, times, strict=True)]


@dataclass(frozen=True, slots=True)
class _Case:
    facts: NetworkTime
    patch: PatchShape
    run: Callable[[], None] | None


def _cases(sweep: Sweep) -> Iterator[_Case]:
    path = find_model(sweep.model)
    device = choose_device(sweep.device)
    prepare_device(device, tf32=TF32 in sweep.precisions)
    loaded = load_model(path, str(device))
    for runtime, size in itertools.product(sweep.runtimes, sweep.sizes or (loaded.card.patch.size,)):
        patch = replace(loaded.card.patch, size=size)
        model, problem = _model(loaded, patch, path, runtime, device)
        for precision, batch in itertools.product(sweep.precisions, sweep.batches):
            facts = NetworkTime(runtime, precision, size, batch, problem=problem)
            if model is None:
                yield _Case(facts, patch, None)
                continue
            number_format = choose_precision(precision, device)
            facts = replace(facts, precision=str(number_format).removeprefix("torch."))
            settings = InferenceSettings(device, number_format, batch, tf32=precision == TF32)
            yield _prepared(facts, patch, Predictor(model, settings))


def _model(
    loaded: LoadedModel, patch: PatchShape, path: Path, runtime: str, device: torch.device
) -> tuple[LoadedModel | None, str]:
    """Return the network in a runtime, with its patch replaced, or why it can't be had."""
    from nuclix.engine.inference.adapter import AdaptedNetwork

    card = replace(loaded.card, patch=patch)
    try:
        source = choose_source(path, runtime)
        if source is None:
            return replace(loaded, card=card), ""
        network = AdaptedNetwork(source.load(path, card, str(device)), card).eval()
        return LoadedModel(card, network, loaded.sha256), ""
    except NuclixError as error:
        return None, str(error)


def _prepared(facts: NetworkTime, patch: PatchShape, predictor: Predictor) -> _Case:
    """Return a case after its first passes, which rewrite graphs and allocate memory."""
    import torch

    shape = (facts.batch, patch.size, patch.size, 3)
    device = predictor.device

    def run() -> None:
        predictor.compute(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    try:
        images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device).permute(0, 3, 1, 2)
        for _ in range(_WARM_UP_PASSES):
            run()
    except (RuntimeError, DeviceMemoryError) as error:
        return _Case(replace(facts, problem=str(error).strip().splitlines()[-1]), patch, None)
    return _Case(facts, patch, run)


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    """Return the wall and CPU time of a call in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _figures(case: _Case, spent: Sequence[tuple[float, float]]) -> NetworkTime:
    if not spent:
        return case.facts
    seconds = statistics.median(wall for wall, _ in spent)
    mpx = case.facts.batch * case.patch.size**2 / _PIXELS_PER_MPX
    useful = case.facts.batch * case.patch.valid**2 / _PIXELS_PER_MPX
    return replace(
        case.facts,
        seconds=seconds,
        cpu_seconds=min(cpu for _, cpu in spent),
        mpx_per_second=mpx / seconds,
        useful_mpx_per_second=useful / seconds,
    )
