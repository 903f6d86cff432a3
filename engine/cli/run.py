"""``nuclix run``: slides in, one file of nuclei each out."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.cli.streams import stderr_line, stdout_line
from nuclix.engine.errors import NuclixError
from nuclix.engine.run_config import RunConfig, config_as_json

if TYPE_CHECKING:
    from nuclix.engine.batch.run_state import RunSummary
    from nuclix.engine.batch.worker_process import WorkerProcess
    from nuclix.engine.cli.signals import SignalHandler
    from nuclix.engine.progress.publisher import EventPublisher, EventSink

SOME_FAILED = 1
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, run it again


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="find the nuclei of slides",
        description="Find every nucleus of every slide and write one GeoJSON each, ready for QuPath.",
    )
    add_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="only list what would be done with each slide, as `nuclix check` does"
    )
    parser.set_defaults(command=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    config = config_of(args)
    if args.dry_run:
        from nuclix.engine.cli.check import show_forecast

        return show_forecast(config)
    return run_config(config)


def run_config(config: RunConfig) -> int:
    """Run the slides of a configuration, and show the progress.

    Parameters
    ----------
    config : RunConfig
        With slides and output folder.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If nothing can be run.
    """
    config.check_complete()
    with ExitStack() as stack:
        first = None
        if config.scheduler is None:  # its imports take longest, so it is started before all else is imported
            from nuclix.engine.batch.worker_process import start_worker

            first = start_worker(config)
            stack.callback(first.close)
        return _run(config, first, stack)


def _run(config: RunConfig, first: WorkerProcess | None, stack: ExitStack) -> int:
    """Run, with the process that has been started for the first worker; return the exit code."""
    from nuclix.engine.batch.layout import REPORT_NAME
    from nuclix.engine.batch.run_state import StopFlag
    from nuclix.engine.batch.runner import run_batch
    from nuclix.engine.cli.signals import SignalHandler

    out, flag = config.output_folder, StopFlag()
    signals = SignalHandler(flag)
    with ExitStack() as sinks:
        publisher = _publisher(config, out, sinks)
        try:
            summary = signals.run(lambda: run_batch(config, publisher, flag, first))
        except BaseException as error:
            _end(publisher, out, str(error) or type(error).__name__)
            raise
        reported = _end(publisher, out, summary.stopped)
    files = f"results and {REPORT_NAME}" if reported else "results"
    where = f"; {files} in {config.out}" if out.is_dir() else ""
    return _conclude(config, summary, signals, where)


def _publisher(config: RunConfig, out: Path, stack: ExitStack) -> EventPublisher:
    """Return what receives the events: the display that was asked for, the log and the status file."""
    from nuclix.engine.progress.display import (
        Bars,
        FailuresOnly,
        JsonLines,
        LogLines,
        PlainLines,
        RunLog,
    )
    from nuclix.engine.progress.meter import RunMeter
    from nuclix.engine.progress.publisher import EventPublisher
    from nuclix.engine.progress.status import StatusFile

    meter = RunMeter()
    stack.enter_context(RunLog(out))
    sinks: list[EventSink] = [LogLines(), StatusFile(out, config_as_json(config))]
    if config.json_log:
        lines = JsonLines(config.json_log)
        stack.callback(lines.close)
        sinks.append(lines)
    if config.json_log == "-":
        pass  # stderr is the program's alone
    elif config.quiet:
        sinks.append(FailuresOnly(stderr_line))
    elif sys.stderr.isatty():
        from rich.console import Console

        sinks.append(stack.enter_context(Bars(Console(stderr=True), meter.snapshot)))
    else:
        sinks.append(PlainLines(stderr_line))
    return EventPublisher(meter, sinks)


def _end(publisher: EventPublisher, out: Path, stopped: str) -> bool:
    """Publish the end of the run and write the report; return whether there is one."""
    from nuclix.engine.batch.events import notice
    from nuclix.engine.batch.index import write_index
    from nuclix.engine.batch.layout import REGIONS_NAME, REPORT_NAME, SUMMARY_NAME
    from nuclix.engine.report.page import write_report
    from nuclix.engine.report.region_table import write_region_table
    from nuclix.engine.report.slide_table import write_slide_table

    if not publisher.started:
        return False
    publisher.run_ended(stopped)
    try:
        _keep_foreign_page(out / REPORT_NAME)
        if not stopped:  # whoever stopped it is waiting; the next run or `nuclix report` makes them
            _make_slide_pages(publisher, out)
        write_slide_table(out, out / SUMMARY_NAME)
        write_region_table(out, out / REGIONS_NAME)
        write_index(out)
        write_report(out, out / REPORT_NAME)
    except (NuclixError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the report can't be written: {reason}"
        logging.getLogger("nuclix").warning(message)
        publisher(notice(message))
        return False
    return True


def _make_slide_pages(publisher: EventPublisher, out: Path) -> None:
    """Make the pages of the finished slides, within a time budget; what they lack is said, and fails nothing."""
    from nuclix.engine.batch.events import notice
    from nuclix.engine.batch.layout import REPORT_NAME
    from nuclix.engine.report.collect import collect
    from nuclix.engine.report.slide_pages import pages_of_run

    lacking = pages_of_run(collect(out), out / REPORT_NAME)
    if lacking:
        publisher(notice(f"the slides' pages: {lacking}"))


def _keep_foreign_page(page: Path) -> None:
    """Keep a copy of a page of the report's name that nuclix did not make."""
    from nuclix.engine.batch.copies import keep_copies

    if page.is_symlink() or (page.is_file() and b"nuclix" not in page.read_bytes()):
        keep_copies([page])


def _conclude(config: RunConfig, summary: RunSummary, signals: SignalHandler, where: str) -> int:
    """Write the outcome of the run in two lines; return the exit code."""
    counts = [f"{len(summary.done)} done", f"{len(summary.failed)} failed"]
    if summary.skipped:
        counts.insert(1, f"{len(summary.skipped)} already done")
    warned = sum(bool(record.warnings) for record in summary.done.values())
    doubtful = f"; {warned} done with warnings" if warned else ""
    if not config.quiet:
        stdout_line(f"{', '.join(counts)}{where}{doubtful}")
    if summary.stopped:
        if config.json_log != "-":
            advice = "fix this, then run the same command to resume" if summary.blocked else "the same command resumes"
            with suppress(OSError):
                stderr_line(f"nuclix: stopped: {summary.stopped}; {advice}")
        return signals.exit_code or (SOME_FAILED if summary.blocked else STOPPED)
    return SOME_FAILED if summary.failed else 0
