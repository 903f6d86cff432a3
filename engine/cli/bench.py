"""``nuclix bench``: how fast a run is on this machine, and which stage limits it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nuclix.engine.cli.bench_parts import add_parsers
from nuclix.engine.cli.streams import stderr_line, stdout_line
from nuclix.engine.errors import OutputError, UsageError
from nuclix.engine.progress.text import grouped, significant

if TYPE_CHECKING:
    from nuclix.engine.run_config import RunConfig

T = TypeVar("T")

EDGE = 2048  # px: seconds on a CPU, and several patches
_BYTES_PER_MB = 1e6

DESCRIPTION = """\
Segment one slide into a temporary folder and print the time of each stage, the stage that limits the run, rates and
memory. Without SLIDE, a synthetic slide is used; its size and pixels are always the same.

parts of a run, measured alone (each has its own --help):
  nuclix bench network   the network by patch size, batch, precision and runtime
  nuclix bench kernels   the compiled kernels against other libraries
  nuclix bench margin    how large the margin of a model's patches must be
"""
# Figures in the order in which they are printed: key, text, unit.
FIGURES = (
    ("run_seconds", "whole run, with start-up", "s"),
    ("slide_seconds", "slide, without start-up", "s"),
    ("start_to_first_tile_seconds", "start to first tile", "s"),
    ("slide_mpx_per_second", "slide", "Mpx/s"),
    ("tissue_mpx_per_second", "tissue", "Mpx/s"),
    ("seconds_per_mm2", "time per tissue area", "s/mm2"),
    ("nuclei_per_second", "nuclei", "1/s"),
    ("output_bytes", "output folder", "bytes"),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the speed of a run on this machine",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("slide", nargs="?", type=Path, metavar="SLIDE", help="slide to segment (a synthetic one)")
    parser.add_argument("--make", type=int, metavar="EDGE", help=f"edge of the synthetic slide in pixels ({EDGE})")
    parser.add_argument("--model", metavar="NAME|FILE", help="installed model or model file (the default of run)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for reading and post-processing (all CPUs)")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="run N times; print min, median and max (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as JSON")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="print the ratios B/A of two files written with --json, without a run",
    )
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="run with 1, 2, 4, ... threads, then with 2, 4, ... processes, and print the speeds",
    )
    parser.add_argument("--runtime", default="auto", metavar="NAME", help="what computes the network (%(default)s)")
    parser.set_defaults(command=bench)
    add_parsers(subparsers)


def bench(args: argparse.Namespace) -> int:
    """Measure or compare, and print."""
    if args.compare:
        return _compare(args)
    if args.slide is not None and args.make is not None:
        raise UsageError("--make draws a synthetic slide: give either SLIDE or --make")
    if args.make is not None and args.make < 1:
        raise UsageError(f"--make must be at least 1, not {args.make}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise OutputError(f"{args.json}: can't be written: its folder does not exist")
    if args.scaling:
        return _with_slide(args, lambda slide: _scaling(args, slide))
    content = _with_slide(args, lambda slide: _run(args, slide))
    for line in _lines(content):
        stdout_line(line)
    if args.json is not None:
        from nuclix.engine.benchmark import write_benchmark

        write_benchmark(args.json, content)
    return 0


def _with_slide(args: argparse.Namespace, work: Callable[[Path], T]) -> T:
    """Return what `work` makes of the slide that was given, or of a synthetic one."""
    import tempfile

    if args.slide is not None:
        return work(args.slide)
    from nuclix.engine.slide.synthetic import make_synthetic_slide

    edge = args.make or EDGE
    with tempfile.TemporaryDirectory(prefix="nuclix-bench-slide-") as folder:
        slide = make_synthetic_slide(Path(folder) / f"synthetic-{edge}.tif", edge)
        return work(slide.path)


def _config(args: argparse.Namespace, slide: Path) -> RunConfig:
    from nuclix.engine.run_config import RunConfig

    given = {"model": args.model, "threads": args.threads}
    options = {name: value for name, value in given.items() if value is not None}
    try:
        return RunConfig(inputs=(str(slide),), device=args.device, runtime=args.runtime, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _scaling(args: argparse.Namespace, slide: Path) -> int:
    """Run with more and more threads and processes; print a line each."""
    from dataclasses import asdict

    from nuclix.engine.bench.scaling import measure_scaling

    def on_run(processes: int, threads: int) -> None:
        stderr_line(f"{processes} process(es), {threads} thread(s)")

    points = []
    stdout_line(f"{'processes':>9}{'threads':>9}{'seconds':>10}{'Mpx/s':>9}{'speed-up':>10}")
    for point in measure_scaling(_config(args, slide), args.threads, on_run):
        points.append(point)
        gain = point.mpx_per_second / points[0].mpx_per_second
        stdout_line(
            f"{point.processes:>9}{point.threads:>9}{significant(point.seconds):>10}"
            f"{significant(point.mpx_per_second):>9}{gain:>10.2f}"
        )
    if args.json is not None:
        from nuclix.engine.benchmark import machine_facts, write_benchmark

        write_benchmark(args.json, {"scaling": [asdict(point) for point in points], **machine_facts()})
    return 0


def _run(args: argparse.Namespace, slide: Path) -> dict[str, Any]:
    from nuclix.engine.benchmark import run_benchmark

    config = _config(args, slide)

    def on_run(number: int) -> None:
        if args.repeat > 1:
            stderr_line(f"run {number} of {args.repeat}")

    return run_benchmark(config, args.repeat, on_run)


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the conditions, the table of stages and the figures."""
    yield from _conditions(content)
    summary, repeated = content["summary"], content["run"]["repeat"] > 1
    threads = {name: stage["threads"] for name, stage in content["runs"][0]["stages"].items()}
    yield ""
    yield f"{'stage':<12}{'seconds':>10}{'threads':>9}{'busy':>7}"
    for name, stage in summary["stages"].items():
        seconds, busy = stage["seconds"]["median"], stage["busy"]["median"]
        yield f"{name:<12}{significant(seconds):>10}{threads[name]:>9}{busy:>7.0%}"
    yield f"bottleneck: {summary['bottleneck']}"
    yield ""
    heading = f"{'median':>12}{'min':>12}{'max':>12}" if repeated else ""
    if heading:
        yield f"{'':<26}{heading}"
    for key, text, unit in FIGURES:
        if key in summary["values"]:
            spread = summary["values"][key]
            kinds = ("median", "min", "max") if repeated else ("median",)
            yield f"{text:<26}{''.join(f'{_number(key, spread[kind]):>12}' for kind in kinds)} {unit}"
    memory = content["memory"]
    yield (
        f"peak memory: {grouped(memory['child_bytes'] / _BYTES_PER_MB)} MB (process that segments), "
        f"{grouped(memory['process_bytes'] / _BYTES_PER_MB)} MB (this process)"
    )


def _number(key: str, value: float) -> str:
    return grouped(value) if key.endswith("_bytes") else significant(value)


def _conditions(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured, and where."""
    slide, model, machine = content["slide"], content["model"], content["machine"]
    tissue = f", {significant(slide['tissue_mm2'])} mm2 of tissue" if slide["tissue_mm2"] is not None else ""
    size = f"{slide['width']:,} x {slide['height']:,} px"
    yield f"slide     {slide['name']}: {size} of {slide['mpp']:.3g} um{tissue}, {grouped(slide['nuclei'])} nuclei"
    yield f"model     {model['name']} ({model['postprocessor']}), {model['precision']}, batch {model['batch']}"
    yield f"device    {model['device']}; {content['run']['threads']} threads"
    memory = grouped(machine["memory_bytes"] / _BYTES_PER_MB)
    yield f"machine   {machine['cpu']}, {machine['cpus']} CPUs, {memory} MB, {machine['system']}"
    yield "versions  " + ", ".join(f"{name} {version}" for name, version in content["versions"].items())


def _compare(args: argparse.Namespace) -> int:
    """Print the figures of two files and their ratios."""
    from nuclix.engine.benchmark import compare_benchmarks, differing_conditions, read_benchmark

    if args.slide is not None or args.make is not None or args.json is not None:
        raise UsageError("--compare runs nothing: give it without SLIDE, --make and --json")
    first, second = (read_benchmark(path) for path in args.compare)
    for name, before, after in differing_conditions(first, second):
        stdout_line(f"not the same: {name}: {before} and {after}")
    stdout_line(f"{'':<30}{'A':>14}{'B':>14}{'B/A':>9}")
    for row in compare_benchmarks(first, second):
        ratio = "-" if row.ratio is None else significant(row.ratio)
        stdout_line(f"{row.name:<30}{_number(row.name, row.first):>14}{_number(row.name, row.second):>14}{ratio:>9}")
    return 0
