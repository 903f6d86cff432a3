"""What a pixel of slide costs one CPU core besides the network: processor time by stage, in ns for each computed pixel.

python tests/benchmarks/core_time.py SLIDE [--model MODEL] [--measure shape,stain] [--repeat N] [--profile STAGE]

Processor time of each thread is counted, so that other programs on the machine hardly matter. The network runs on one
thread alone. One line of JSON is written, with the SHA-256 of the result.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import torch

from cheap_network import save_cheap_model
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation import computation, pipeline, slide, survey
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.slide import make_context, segment_slide
from nuclix.engine.segmentation.stage_timer import StageClock


class CpuClock(StageClock):
    """Counts the processor time of the thread in place of time that passes."""

    profile: cProfile.Profile | None = None
    profiled = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the block for `name`."""
        profile = self.profile if name == self.profiled else None
        start = time.thread_time()
        if profile:
            profile.enable()
        try:
            yield
        finally:
            if profile:
                profile.disable()
            spent = time.thread_time() - start
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + spent


def run(config: RunConfig, model: Path) -> dict[str, Any]:
    """Segment the slide in this process; return ns for each computed pixel by stage, and the result's SHA-256."""
    with tempfile.TemporaryDirectory(prefix="nuclix-core-time-") as folder:
        job = SlideJob(Path(config.inputs[0]), PurePosixPath("slide"))
        for path in (Path(folder) / ".nuclix", slide_paths(Path(folder), job).objects.parent):
            path.mkdir(parents=True, exist_ok=True)
        context = make_context(config, time.time())
        torch.set_num_threads(1)
        hooks = RunHooks(lambda _: None, lambda: False)
        started = time.process_time()
        outcome = segment_slide(slide_paths(Path(folder), job), context, hooks)
        total = time.process_time() - started
        digest = hashlib.sha256((Path(folder) / outcome.output).read_bytes()).hexdigest()
    record = outcome.record
    pixels = record.counts["pixels"]
    stages = {k: v for k, v in record.seconds.items() if k not in ("wall", "start_to_first_tile")}
    figures = {name: seconds / pixels * 1e9 for name, seconds in stages.items()}
    rest = {"unaccounted": total / pixels * 1e9 - sum(figures.values())}
    whole = {"besides the network": total / pixels * 1e9 - figures["network"], "pixels": pixels}
    return {"nuclei": record.counts["nuclei"], **figures, **rest, **whole, "sha256": digest}


def main() -> None:
    """Print the smallest figures of several runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("--model", help="model file or name; by default a network that costs next to nothing")
    parser.add_argument("--measure", default="shape", help="families of measurements")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", default="", help="a stage whose Python calls are listed; use one repetition")
    options = parser.parse_args()
    pipeline.StageClock = CpuClock  # type: ignore[attr-defined]
    # What is not in stages of the pipeline is measured by the clock that these modules call.
    slide.time = computation.time = survey.time = SimpleNamespace(perf_counter=time.thread_time, time=time.time)  # type: ignore[attr-defined]
    if options.profile:
        CpuClock.profile, CpuClock.profiled = cProfile.Profile(time.thread_time), options.profile
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(save_cheap_model(Path(folder) / "cheap.pt"))
        families = tuple(options.measure.split(","))
        config = RunConfig(
            inputs=(options.slide,), out=folder, model=model, device="cpu", threads=1, measurements=families,
            format=("geojson",),
        )  # fmt: skip
        found = [run(config, Path(model)) for _ in range(options.repeat)]
    best = min(found, key=lambda figures: float(figures["besides the network"]))
    sys.stdout.write(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in best.items()}) + "\n")
    if CpuClock.profile:
        pstats.Stats(CpuClock.profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
