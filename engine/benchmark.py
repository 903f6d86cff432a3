"""Measure a whole run over one slide: time by stage, rates, memory; and compare two such measurements.

Every figure comes from the slide's record, as a user's run writes it, except the time of the whole run, the size of
the output folder and the memory of the processes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.errors import NuclixError, OutputError, SlideError, UsageError
from nuclix.engine.files import replace_file
from nuclix.engine.inference.device import cpu_name
from nuclix.engine.operating_system import peak_memory
from nuclix.engine.run_config import RunConfig, default_threads
from nuclix.engine.segmentation.record import SlideRecord, versions

BENCHMARK_FORMAT = 1
THREADED_STAGES = ("read", "split")  # on as many threads as --threads says; every other stage is on one
_MODEL_KEYS = ("name", "sha256", "postprocessor", "device", "runtime", "precision", "batch", "tta")
_PIXELS_PER_MPX = 1e6  # and square micrometres in a mm2
# What two measurements should agree in for their ratios to mean anything: section and key of the JSON file.
_CONDITIONS = (
    *(("slide", key) for key in ("name", "height", "width", "mpp")),
    *(("model", key) for key in ("name", "sha256", "device", "runtime", "precision", "batch")),
    *(("machine", key) for key in ("cpu", "cpus")),
    ("run", "threads"),
    *(("versions", key) for key in ("nuclix", "python", "torch")),
)


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time of one stage.

    Attributes
    ----------
    seconds : float
        Sum over its threads.
    threads : int
        Threads that the stage may use.
    busy : float
        `seconds` as a share of the slide's wall time on all of these threads, 0 to 1. Stages work at the same time, so
        shares do not add up to 1.
    """

    seconds: float
    threads: int
    busy: float


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What was measured in one run.

    Attributes
    ----------
    stages : mapping of str to StageTime
        In the record's order.
    bottleneck : str
        The stage with the largest busy share; empty if there is no stage.
    values : mapping of str to float
        Figures by name; those that a slide does not have (rates of tissue where there is none) are left out.
    """

    stages: Mapping[str, StageTime]
    bottleneck: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of two measurements.

    Attributes
    ----------
    name : str
        The figure.
    first, second : float
        Medians of both.
    ratio : float or None
        `second` over `first`; None where `first` is 0.
    """

    name: str
    first: float
    second: float
    ratio: float | None


def run_figures(record: SlideRecord, run_seconds: float, output_bytes: int) -> RunFigures:
    """Return the figures of a finished run.

    Parameters
    ----------
    record : SlideRecord
        Of its only slide.
    run_seconds : float
        From the call to the end, with the start of the worker process and the loading of the model.
    output_bytes : int
        Size of the output folder.
    """
    wall = record.seconds["wall"]
    count = int(record.settings["threads"])
    stages = {}
    for name, seconds in record.seconds.items():
        if name not in ("wall", "start_to_first_tile"):
            threads = count if name in THREADED_STAGES else 1
            stages[name] = StageTime(seconds, threads, seconds / (wall * threads))
    bottleneck = max(stages, key=lambda name: stages[name].busy, default="")
    values = {"run_seconds": run_seconds, "slide_seconds": wall}
    if (first := record.seconds.get("start_to_first_tile")) is not None:
        values["start_to_first_tile_seconds"] = first
    values["slide_mpx_per_second"] = slide_mpx(record) / wall
    if tissue := record.counts.get("tissue_mm2"):
        values["tissue_mpx_per_second"] = tissue / record.slide["mpp"] ** 2 / wall
        values["seconds_per_mm2"] = wall / tissue
    values["nuclei_per_second"] = record.counts["nuclei"] / wall
    values["output_bytes"] = float(output_bytes)
    return RunFigures(stages, bottleneck, values)


def slide_mpx(record: SlideRecord) -> float:
    """Return the size of a slide's full resolution in millions of pixels."""
    return float(record.slide["height"] * record.slide["width"] / _PIXELS_PER_MPX)


def run_benchmark(config: RunConfig, repeat: int = 1, on_run: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Run one slide several times, each time into a new temporary folder and in a new process.

    Parameters
    ----------
    config : RunConfig
        With one slide; its output folder is not used.
    repeat : int
        How many runs.
    on_run : callable
        Receives the number of each run, from 1, before it starts.

    Returns
    -------
    dict
        Plain JSON values: ``slide``, ``model``, ``run``, ``machine``, ``versions``, ``memory``, ``runs`` (one entry for
        each) and ``summary`` (min, median and max of each figure over the runs).

    Raises
    ------
    UsageError
        If there is not exactly one slide, `repeat` is below 1, or nothing can be run.
    SlideError
        If the slide fails, or its worker process was lost, so that its times are those of a part.
    NuclixError
        If the run was stopped, as where the temporary folder is full.
    """
    if len(config.inputs) != 1 or Path(config.inputs[0]).is_dir():
        raise UsageError("a benchmark takes one slide, not a folder")
    if repeat < 1:
        raise UsageError(f"--repeat must be at least 1, not {repeat}")
    measured = []
    for number in range(1, repeat + 1):
        on_run(number)
        measured.append(_one_run(config))
    return _content(measured[-1][0], [figures for _, figures in measured])


def _one_run(config: RunConfig) -> tuple[SlideRecord, RunFigures]:
    """Run the slide once and remove its results."""
    with tempfile.TemporaryDirectory(prefix="nuclix-bench-") as folder:
        out = Path(folder)
        started = time.perf_counter()
        summary = run_batch(replace(config, out=str(out)), lambda _: None, StopFlag())
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    record = _only_record(summary, config.inputs[0])
    return record, run_figures(record, seconds, size)


def _only_record(summary: RunSummary, slide: str) -> SlideRecord:
    """Return the record of a run's only slide, if its times are those of the whole slide."""
    if summary.failed:
        raise SlideError("; ".join(summary.failed.values()))
    if summary.stopped:
        raise NuclixError(f"the run was stopped: {summary.stopped}")
    (record,) = summary.done.values()
    if record.counts["rows_resumed"]:
        raise SlideError(f"{slide}: its worker process was lost and restarted, so the times are incomplete; try again")
    return record


def _content(record: SlideRecord, figures: Sequence[RunFigures]) -> dict[str, Any]:
    """Return everything measured in plain values."""
    slide, model = record.slide, record.model
    return {
        "format": BENCHMARK_FORMAT,
        "slide": {
            "name": Path(slide["path"]).name,
            **{key: slide[key] for key in ("vendor", "reader", "height", "width", "mpp")},
            "mpx": slide_mpx(record),
            "tissue_mm2": record.counts.get("tissue_mm2"),
            "tiles": record.counts["tiles"],
            "nuclei": record.counts["nuclei"],
        },
        "model": {key: model[key] for key in _MODEL_KEYS},
        "run": {key: record.settings[key] for key in ("threads", "block")} | {"repeat": len(figures)},
        "machine": _machine(),
        "versions": versions(),
        "memory": peak_memory(),
        "runs": [_plain(one) for one in figures],
        "summary": _summary(figures),
    }


def _plain(figures: RunFigures) -> dict[str, Any]:
    stages = {
        name: {"seconds": stage.seconds, "threads": stage.threads, "busy": stage.busy}
        for name, stage in figures.stages.items()
    }
    return {"stages": stages, "bottleneck": figures.bottleneck, "values": dict(figures.values)}


def _summary(figures: Sequence[RunFigures]) -> dict[str, Any]:
    """Return min, median and max over the runs; the bottleneck is that of the median shares."""
    first = figures[0]
    stages = {
        name: {
            "seconds": _spread([one.stages[name].seconds for one in figures]),
            "busy": _spread([one.stages[name].busy for one in figures]),
        }
        for name in first.stages
    }
    values = {name: _spread([one.values[name] for one in figures]) for name in first.values}
    bottleneck = max(stages, key=lambda name: stages[name]["busy"]["median"], default="")
    return {"stages": stages, "bottleneck": bottleneck, "values": values}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def machine_facts() -> dict[str, Any]:
    """Return the machine and the versions, for files of other measurements."""
    return {"machine": _machine(), "versions": versions()}


def _machine() -> dict[str, Any]:
    """Return what speed depends on and no record holds."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpus": default_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def write_benchmark(path: Path, content: Mapping[str, Any]) -> None:
    """Write a measurement as JSON.

    Raises
    ------
    OutputError
        If the file can't be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        replace_file(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def read_benchmark(path: Path) -> dict[str, Any]:
    """Read a measurement that `write_benchmark` has written.

    Raises
    ------
    UsageError
        If the file can't be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    known = isinstance(content, dict) and content.get("format") == BENCHMARK_FORMAT
    if not known or not {"summary", "memory", "slide", "model"} <= content.keys():
        raise UsageError(f"{path}: not a benchmark of this version; write one with `nuclix bench --json FILE`")
    return dict(content)


def compare_benchmarks(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Ratio]:
    """Return the ratios of all figures that both measurements have.

    Parameters
    ----------
    first, second : mapping
        From `run_benchmark` or `read_benchmark`; `first` is the reference.
    """
    reference = dict(_medians(first))
    return [
        Ratio(name, reference[name], value, value / reference[name] if reference[name] else None)
        for name, value in _medians(second)
        if name in reference
    ]


def _medians(content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield name and median of each figure."""
    for name, stage in content["summary"]["stages"].items():
        yield f"{name}_seconds", stage["seconds"]["median"]
    for name, value in content["summary"]["values"].items():
        yield name, value["median"]
    for name, value in content["memory"].items():
        yield f"peak_{name}", value


def differing_conditions(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return what is not the same in two measurements: name, value in the first, value in the second."""
    pairs = [
        (f"{section} {key}", first.get(section, {}).get(key), second.get(section, {}).get(key))
        for section, key in _CONDITIONS
    ]
    return [(name, before, after) for name, before, after in pairs if before != after]
