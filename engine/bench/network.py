"""Time the network alone: patch sizes, batches, number formats and runtimes, without slide and post-processing."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import NuclixError
from nuclix.engine.inference.model_file import find_model, read_model
from nuclix.engine.inference.patch_predictor import PatchPredictor
from nuclix.engine.inference.predictor import Predictor
from nuclix.engine.inference.runtime import resolve_runtime
from nuclix.engine.model_card import PatchShape
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.preparation import open_network

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
    """A combination; `run` makes `passes` of them at the same time."""

    facts: NetworkTime
    patch: PatchShape
    run: Callable[[], None] | None
    passes: int = 1


def _cases(sweep: Sweep) -> Iterator[_Case]:
    path = find_model(sweep.model)
    file = read_model(path)
    sizes = sweep.sizes or (file.card.patch.size,)
    for asked, size, precision, batch in itertools.product(sweep.runtimes, sizes, sweep.precisions, sweep.batches):
        name = resolve_runtime(path, asked, sweep.device, precision)
        config = RunConfig(model=sweep.model, device=sweep.device, runtime=name, precision=precision, batch=batch)
        patch = replace(file.card.patch, size=size)
        try:
            predictor = open_network(path, config, patch=patch).predictor
        except NuclixError as error:
            yield _Case(NetworkTime(name, precision, size, batch, problem=str(error)), patch, None)
            continue
        yield _prepared(NetworkTime(name, predictor.precision_name, size, batch), patch, predictor)


def _prepared(facts: NetworkTime, patch: PatchShape, predictor: PatchPredictor) -> _Case:
    """Return a case after its first passes, which rewrite graphs and allocate memory."""
    passes = max(1, predictor.in_flight) if predictor.device.type == "cpu" else 1
    rng = np.random.default_rng(0)
    patches = list(rng.integers(0, 256, (facts.batch, patch.size, patch.size, 3), np.uint8))
    run = (
        _in_arrays(predictor, patches, passes)
        if not isinstance(predictor, Predictor)
        else _in_torch(predictor, patches)
    )
    try:
        for _ in range(_WARM_UP_PASSES):
            run()
    except (RuntimeError, NuclixError) as error:
        return _Case(replace(facts, problem=str(error).strip().splitlines()[-1]), patch, None)
    return _Case(facts, patch, run, passes)


def _in_arrays(predictor: PatchPredictor, patches: Sequence[NDArray[np.uint8]], passes: int) -> Callable[[], None]:
    """Return what computes as many batches as are computed at the same time in a run."""

    def run() -> None:
        for wait in [predictor.submit(patches) for _ in range(passes)]:
            wait()

    return run


def _in_torch(predictor: Predictor, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], None]:
    """Return what computes a batch that lies on the device."""
    import torch

    device = predictor.device
    images = torch.from_numpy(np.stack(patches)).to(device).permute(0, 3, 1, 2)

    def run() -> None:
        predictor.compute(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    """Return the wall and CPU time of a call in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _figures(case: _Case, spent: Sequence[tuple[float, float]]) -> NetworkTime:
    if not spent:
        return case.facts
    seconds = statistics.median(wall for wall, _ in spent) / case.passes
    mpx = case.facts.batch * case.patch.size**2 / _PIXELS_PER_MPX
    useful = case.facts.batch * case.patch.valid**2 / _PIXELS_PER_MPX
    return replace(
        case.facts,
        seconds=seconds,
        cpu_seconds=min(cpu for _, cpu in spent) / case.passes,
        mpx_per_second=mpx / seconds,
        useful_mpx_per_second=useful / seconds,
    )
