"""``nuclix status``: how a run goes, asked from another shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclix.engine.report.collect import FolderFacts


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="show the progress or the outcome of a run",
        description="Say how the run in an output folder goes or went. It only reads, and may be asked at any time.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=print_status)


def print_status(args: argparse.Namespace) -> int:
    """Print it."""
    import json

    from nuclix.engine.report.collect import collect

    folder = collect(args.out)
    print(json.dumps(status_facts(folder), indent=2) if args.json else "\n".join(status_lines(folder)))
    return 0


def run_state(folder: FolderFacts) -> str:
    """Return running, finished, stopped (as asked, or at an error) or killed; unknown without a status file."""
    if folder.last is None:
        return "unknown"
    if folder.live:
        return "running"
    if folder.last.ended is None:
        return "killed"
    return "stopped" if folder.last.stopped else "finished"


def status_facts(folder: FolderFacts) -> dict[str, Any]:
    """Return an output folder's state in plain values.

    Parameters
    ----------
    folder : FolderFacts
        From `collect`.

    Returns
    -------
    dict
        ``state``, ``run`` (host, process, times, progress; None where no run left a status file), ``slides`` (number by
        state), ``nuclei`` and ``failed`` (name to reason).
    """
    from collections import Counter

    from nuclix.engine.batch.ledger import FAILED
    from nuclix.engine.parameters import as_mapping

    run = None
    if folder.last is not None:
        facts = as_mapping(folder.last)
        names = ("host", "pid", "started", "updated", "ended", "stopped", "progress")
        run = {name: facts[name] for name in names}
    return {
        "out": str(folder.out),
        "state": run_state(folder),
        "run": run,
        "slides": {"total": len(folder.slides), **Counter(slide.state for slide in folder.slides)},
        "nuclei": sum(slide.nuclei or 0 for slide in folder.slides),
        "failed": {slide.name: slide.reason for slide in folder.slides if slide.state == FAILED},
    }


def status_lines(folder: FolderFacts) -> list[str]:
    """Return an output folder's state as lines.

    Parameters
    ----------
    folder : FolderFacts
        From `collect`.
    """
    from nuclix.engine.progress.text import duration, grouped, one_line

    facts = status_facts(folder)
    slides = ", ".join(f"{count} {state}" for state, count in facts["slides"].items() if state != "total")
    lines = [f"{folder.out}: {_headline(folder)}", f"slides: {facts['slides']['total']} ({slides})"]
    lines.append(f"nuclei: {grouped(facts['nuclei'])} in finished slides")
    if folder.live and folder.last is not None:
        now = folder.last.progress
        left = "" if now.seconds_left is None else f", {duration(now.seconds_left)} left"
        lines.append(f"speed:  {now.mpx_per_s:.1f} Mpx/s, {grouped(now.nuclei_per_s)} nuclei/s{left}")
        for slide in now.active:
            share = (
                f"{slide.tiles / slide.tiles_total:.0%} of {slide.tiles_total} tiles"
                if slide.tiles_total
                else "opening"
            )
            lines.append(
                f"  {one_line(slide.name)}: {share}, {slide.mpx_per_s:.1f} Mpx/s, {grouped(slide.nuclei)} nuclei"
            )
        lines.append(f"last update {duration(max(0.0, folder.made - folder.last.updated))} ago")
    lines += [f"failed: {one_line(name)}: {one_line(error)}" for name, error in facts["failed"].items()]
    if facts["state"] in ("stopped", "killed"):
        lines.append("the same command resumes")
    return lines


def _headline(folder: FolderFacts) -> str:
    from nuclix.engine.progress.text import duration, moment, one_line

    run, state = folder.last, run_state(folder)
    if run is None:
        return "no run has left a status file"
    since = moment(run.started)
    where = f"process {run.pid} on {one_line(run.host)}"
    if state == "running":
        return f"running for {duration(folder.made - run.started)} ({where}, since {since})"
    if state == "killed":
        return f"killed, or its machine went down ({where}, since {since})"
    end = moment(run.ended or run.updated)
    return f"finished on {end}" if state == "finished" else f"stopped on {end}: {one_line(run.stopped)}"
