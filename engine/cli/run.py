"""``nuclix run``: slides in, one file of nuclei each out."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.config import RunConfig, batch_options, config_as_json, run_settings
from nuclix.engine.errors import NuclixError

if TYPE_CHECKING:
    from nuclix.engine.batch import RunSummary
    from nuclix.engine.cli.signals import SignalWatch
    from nuclix.engine.report.events import EventSink, RunEvents

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
    from nuclix.engine.batch import StopFlag, run_batch
    from nuclix.engine.cli.signals import SignalWatch

    settings, options = run_settings(config), batch_options(config)
    flag = StopFlag()
    signals = SignalWatch(flag)
    with ExitStack() as stack:
        listener = _listener(config, settings.out, stack)
        try:
            summary = signals.run(lambda: run_batch(config.inputs, settings, options, listener, flag))
        except BaseException as error:
            _end(listener, settings.out, str(error) or type(error).__name__)
            raise
        reported = _end(listener, settings.out, summary.stopped)
    files = "results and report.html" if reported else "results"
    where = f"; {files} in {config.out}" if settings.out.is_dir() else ""
    return _conclude(config, summary, signals, where)


def _listener(config: RunConfig, out: Path, stack: ExitStack) -> RunEvents:
    """Return what listens to the run: the display that was asked for, the log and the status file."""
    from nuclix.engine.cli.display import Bars, FailuresOnly, JsonLines, LogLines, PlainLines, RunLog, stderr_line
    from nuclix.engine.report.events import RunEvents
    from nuclix.engine.report.meter import RunMeter
    from nuclix.engine.report.status import StatusFile

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
    return RunEvents(meter, sinks)


def _end(listener: RunEvents, out: Path, stopped: str) -> bool:
    """Close the run's books; say whether there is a report. None does not change what the run has done."""
    from nuclix.engine.report.page import write_report

    if not listener.begun:
        return False
    listener.run_ended(stopped)
    try:
        write_report(out, out / "report.html")
    except (NuclixError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the report can't be written: {reason}"
        logging.getLogger("nuclix").warning(message)
        listener.notice(message)
        return False
    return True


def _conclude(config: RunConfig, summary: RunSummary, signals: SignalWatch, where: str) -> int:
    """Say in two lines what came of the run, and where it is; return the exit code."""
    counts = [f"{len(summary.done)} done", f"{len(summary.failed)} failed"]
    if summary.skipped:
        counts.insert(1, f"{len(summary.skipped)} already done")
    if not config.quiet:
        print(f"{', '.join(counts)}{where}")
    if summary.stopped:
        if config.json_log != "-":
            then = "when that is mended, the same command" if summary.blocked else "the same command"
            sys.stderr.write(f"nuclix: stopped: {summary.stopped}; {then} goes on from here\n")
        return signals.exit_code or (SOME_FAILED if summary.blocked else STOPPED)
    return SOME_FAILED if summary.failed else 0
