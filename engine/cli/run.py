"""``nuclix run``: slides in, one file of nuclei each out."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.errors import NuclixError
from nuclix.engine.run_config import RunConfig, config_as_json

if TYPE_CHECKING:
    from nuclix.engine.batch.runner import RunSummary
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
    parser.set_defaults(command=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    return run_config(config_of(args))


def run_config(config: RunConfig) -> int:
    """Run slides as a configuration says, and show how it goes.

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
    from nuclix.engine.batch.layout import REPORT_NAME
    from nuclix.engine.batch.runner import StopFlag, run_batch
    from nuclix.engine.cli.signals import SignalHandler

    config.check_complete()
    out, flag = config.output_folder, StopFlag()
    signals = SignalHandler(flag)
    with ExitStack() as stack:
        publisher = _publisher(config, out, stack)
        try:
            summary = signals.run(lambda: run_batch(config, publisher, flag))
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
        stderr_line,
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
    from nuclix.engine.batch.layout import REPORT_NAME, SUMMARY_NAME
    from nuclix.engine.report.page import write_report
    from nuclix.engine.report.slide_table import write_slide_table

    if not publisher.started:
        return False
    publisher.run_ended(stopped)
    try:
        write_slide_table(out, out / SUMMARY_NAME)
        write_index(out)
        write_report(out, out / REPORT_NAME)
    except (NuclixError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the report can't be written: {reason}"
        logging.getLogger("nuclix").warning(message)
        publisher(notice(message))
        return False
    return True


def _conclude(config: RunConfig, summary: RunSummary, signals: SignalHandler, where: str) -> int:
    """Say in two lines what came of the run, and where it is; return the exit code."""
    counts = [f"{len(summary.done)} done", f"{len(summary.failed)} failed"]
    if summary.skipped:
        counts.insert(1, f"{len(summary.skipped)} already done")
    warned = sum(bool(record.warnings) for record in summary.done.values())
    doubtful = f"; {warned} done with warnings" if warned else ""
    if not config.quiet:
        print(f"{', '.join(counts)}{where}{doubtful}")
    if summary.stopped:
        if config.json_log != "-":
            advice = "fix this, then run the same command to resume" if summary.blocked else "the same command resumes"
            sys.stderr.write(f"nuclix: stopped: {summary.stopped}; {advice}\n")
        return signals.exit_code or (SOME_FAILED if summary.blocked else STOPPED)
    return SOME_FAILED if summary.failed else 0
