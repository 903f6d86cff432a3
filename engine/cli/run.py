"""``nuclix run``: slides in, one file of nuclei each out."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nuclix.engine.cli.signals import SignalWatch
from nuclix.engine.settings import DEFAULT_BLOCK, DEFAULT_MODEL, RunSettings, default_workers

if TYPE_CHECKING:
    from nuclix.engine.inputs import SlideJob
    from nuclix.engine.listener import RunPlan
    from nuclix.engine.pipeline import Progress
    from nuclix.engine.record import SlideRecord

SOME_FAILED = 1
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, run it again
# Without a terminal a line is printed this often, in seconds.
LINE_INTERVAL = 30.0


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="find the nuclei of slides",
        description="Find every nucleus of every slide and write one GeoJSON each, ready for QuPath.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="slides, folders of slides, or patterns")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    add_run_options(parser)
    parser.add_argument(
        "--devices", metavar="D,D", help="a worker process for each, such as cuda:0,cuda:1 (in place of --device)"
    )
    parser.add_argument(
        "--retry", type=int, default=0, metavar="N", help="try a slide that failed again up to N times (%(default)s)"
    )
    parser.add_argument("--fail-fast", action="store_true", help="end the run at the first slide that fails")
    parser.add_argument("--time-limit", type=_positive, metavar="S", help="have ended after S seconds, cleanly")
    parser.add_argument(
        "--patience",
        type=_positive,
        default=1800.0,
        metavar="S",
        help="fail a slide that has not come any further for S seconds (%(default)s)",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://node1:8786 (in place of --device)"
    )
    parser.set_defaults(command=run_command)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command that runs a model has."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="installed model or model file (%(default)s)"
    )
    parser.add_argument(
        "--mpp", type=_positive, metavar="UM", help="um/px of the full resolution, for slides that do not say it"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16 (%(default)s)")
    parser.add_argument("--batch", type=_count, metavar="N", help="patches a forward pass (what suits the device)")
    parser.add_argument(
        "--block",
        type=_count,
        default=DEFAULT_BLOCK,
        metavar="PX",
        help="edge of a post-processing block (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=default_workers(),
        metavar="N",
        help="threads for reading and post-processing (%(default)s)",
    )
    parser.add_argument("--no-tissue", action="store_true", help="compute glass too")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of um/px, not {text}")
    return value


def settings_of(args: argparse.Namespace) -> RunSettings:
    """Return the run's settings from parsed options."""
    return RunSettings(
        out=args.out,
        model=args.model,
        mpp=args.mpp,
        device=args.device,
        precision=args.precision,
        batch=args.batch,
        block=args.block,
        workers=args.workers,
        tissue=not args.no_tissue,
    )


def run_command(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.batch import BatchOptions, StopFlag, run_batch

    settings = settings_of(args)
    devices = tuple(args.devices.split(",")) if args.devices else (args.device,)
    options = BatchOptions(devices, args.retry, args.fail_fast, args.time_limit, args.patience, args.scheduler)
    flag = StopFlag()
    signals = SignalWatch(flag)
    with RunDisplay(settings.out) as display:
        summary = signals.run(lambda: run_batch(args.inputs, settings, options, display, flag))
    for name, message in summary.failed.items():
        sys.stderr.write(f"nuclix: {name}: failed: {message}\n")
    counts = [f"{len(summary.done)} done", f"{len(summary.failed)} failed"]
    if summary.skipped:
        counts.insert(1, f"{len(summary.skipped)} already done")
    print(f"{', '.join(counts)}; results in {settings.out}")
    if summary.stopped:
        then = "when that is mended, the same command" if summary.blocked else "the same command"
        sys.stderr.write(f"nuclix: stopped: {summary.stopped}; {then} goes on from here\n")
        return signals.exit_code or (SOME_FAILED if summary.blocked else STOPPED)
    return SOME_FAILED if summary.failed else 0


class RunDisplay:
    """Shows a run: a progress bar on a terminal, plain lines elsewhere; everything also goes to ``run.log``.

    Parameters
    ----------
    out : Path
        The output folder.
    """

    def __init__(self, out: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._out = out
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} tiles"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[nuclei]} nuclei"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, float] = {}
        self._last_line = 0.0
        self._total = 0
        self._log: logging.Handler | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._log is not None:
            logging.getLogger("nuclix").removeHandler(self._log)
            self._log.close()

    def _open_log(self) -> None:
        """Begin ``run.log`` once the output folder is known to be there."""
        self._log = logging.FileHandler(self._out / "run.log", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("nuclix")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self._log)

    def run_started(self, plan: RunPlan) -> None:
        """Begin the log, now that the output folder is known to be there."""
        self._total = plan.total - plan.skipped
        self._open_log()
        if plan.skipped:
            self._say(f"{plan.skipped} of {plan.total} slides are done already")

    def slide_stopped(self, job: SlideJob) -> None:
        """Remove the bar."""
        self._remove(job)

    def slide_started(self, job: SlideJob, number: int) -> None:
        """Begin the slide's bar."""
        description = f"[{number}/{self._total}] {job.path.name}"
        self._begun[str(job.name)] = time.perf_counter()
        self._tasks[str(job.name)] = self._bar.add_task(description, total=None, speed="", nuclei=0)

    def slide_progress(self, job: SlideJob, progress: Progress) -> None:
        """Move the bar."""
        now = time.perf_counter()
        speed = f"{progress.pixels / 1e6 / max(now - self._begun[str(job.name)], 1e-9):.1f} Mpx/s"
        self._bar.update(
            self._tasks[str(job.name)],
            completed=progress.tiles,
            total=progress.tiles_total,
            speed=speed,
            nuclei=progress.nuclei,
        )
        if not self._console.is_terminal and now - self._last_line >= LINE_INTERVAL:
            self._last_line = now
            self._print(
                f"{job.path.name}: {progress.tiles}/{progress.tiles_total} tiles, {speed}, {progress.nuclei} nuclei"
            )

    def slide_done(self, job: SlideJob, record: SlideRecord) -> None:
        """Say what came of the slide."""
        self._remove(job)
        seconds = record.seconds["wall"]
        speed = record.counts["pixels"] / 1e6 / seconds
        self._say(f"{job.path.name}: {record.counts['nuclei']} nuclei in {seconds:.1f} s ({speed:.1f} Mpx/s)")
        for warning in record.warnings:
            self._say(f"{job.path.name}: warning: {warning}")

    def slide_failed(self, job: SlideJob, message: str) -> None:
        """Say what went wrong."""
        self._remove(job)
        self._print(f"{job.path.name}: failed: {message}")

    def notice(self, message: str) -> None:
        """Say what the user should know."""
        self._say(message)

    def _remove(self, job: SlideJob) -> None:
        task = self._tasks.pop(str(job.name), None)
        if task is not None:
            self._bar.remove_task(task)

    def _say(self, line: str) -> None:
        logging.getLogger("nuclix").info(line)
        self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
