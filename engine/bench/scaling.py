"""Time the same work with more and more threads, then with more and more processes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nuclix.engine.batch.run_state import StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.errors import NuclixError, SlideError
from nuclix.engine.run_config import RunConfig, default_threads


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """One run.

    Attributes
    ----------
    processes, threads : int
        Worker processes, and threads of each for reading and post-processing.
    slides : int
        Copies of the slide: one a process.
    seconds : float
        Whole run, with start-up.
    mpx_per_second : float
        Of all slides at full resolution.
    """

    processes: int
    threads: int
    slides: int
    seconds: float
    mpx_per_second: float


def measure_scaling(config: RunConfig, most: int | None, on_run: Callable[[int, int], None]) -> Iterator[ScalingPoint]:
    """Yield a run for 1, 2, 4, ... threads in one process, then for 2, 4, ... processes that share the CPUs.

    Parameters
    ----------
    config : RunConfig
        Inputs: one slide.
    most : int or None
        Largest number of threads and of processes; by default the CPUs of this process.
    on_run : callable
        Called with processes and threads before each run.

    Raises
    ------
    SlideError, NuclixError
        If a slide fails.
    """
    cpus = most or default_threads()
    for threads in _doubled(1, cpus):
        on_run(1, threads)
        yield _run(config, 1, threads)
    for processes in _doubled(2, cpus):
        on_run(processes, max(1, cpus // processes))
        yield _run(config, processes, max(1, cpus // processes))


def _doubled(first: int, last: int) -> list[int]:
    """Return first, 2 first, 4 first, ... below `last`, and `last`; nothing if `last` is below first."""
    values = []
    while first < last:
        values.append(first)
        first *= 2
    return [*values, last] if values or first == last else []


def _run(config: RunConfig, processes: int, threads: int) -> ScalingPoint:
    """Run as many copies of the slide as there are processes."""
    slide = Path(config.inputs[0]).resolve()
    device = config.device if config.device != "auto" else "cpu"
    with tempfile.TemporaryDirectory(prefix="nuclix-scaling-") as folder:
        copies = []
        for number in range(processes):
            copy = Path(folder) / f"{slide.stem}-{number}{slide.suffix}"
            shutil.copyfile(slide, copy)  # links to one file are one slide to a run
            copies.append(str(copy))
        options = {"inputs": tuple(copies), "out": str(Path(folder) / "out"), "threads": threads}
        devices = (device,) * processes if processes > 1 else ()
        started = time.perf_counter()
        summary = run_batch(replace(config, devices=devices, **options), lambda _: None, StopFlag())  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
    if summary.failed:
        raise SlideError("; ".join(summary.failed.values()))
    if summary.stopped:
        raise NuclixError(f"the run was stopped: {summary.stopped}")
    pixels = sum(record.slide["height"] * record.slide["width"] for record in summary.done.values())
    return ScalingPoint(processes, threads, processes, seconds, pixels / 1e6 / seconds)
