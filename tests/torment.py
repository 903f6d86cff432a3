"""Runs that are killed again and again until they are through, for the crash tests and their long versions."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from overnight import children_of, is_worker, leftovers, nuclix, results


@dataclass(slots=True)
class Torment:
    """How often what was done to a run, and what came of it."""

    out: Path
    kills: int = 0
    rounds: int = 0
    completions: list[dict[str, str]] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    remains: list[str] = field(default_factory=list)


def generations(out: Path) -> set[Path]:
    """Return the generations of all spools: a worker that has begun a slide has made a new one."""
    return set(out.rglob(".*.spool/0*"))


def torment(
    command: Sequence[object],
    out: Path,
    kills: int,
    kill: Callable[[subprocess.Popen[str]], None],
    pick: random.Random,
    allowed: set[int],
    *,
    pace: float = 1.5,
) -> Torment:
    """Run `command` and kill it at random moments until it has been killed so often; begin anew whenever it is done.

    At work a kill comes after 1 / `pace` seconds on average.
    """
    found = Torment(out)
    code = -1
    while found.kills < kills or code != 0:
        found.rounds += 1
        before, rows = generations(out), committed_rows(out)
        process = nuclix(*command)
        # Every fifth time anywhere from the start on; otherwise once a slide is in work.
        at_work = pick.random() > 0.2
        while at_work and process.poll() is None and generations(out) <= before:
            time.sleep(0.005)
        try:
            process.wait(pick.expovariate(pace) if at_work else pick.uniform(0, 3))
        except subprocess.TimeoutExpired:
            if found.kills < kills:
                found.moments[_moment(out, before, rows)] += 1
                kill(process)
                found.kills += 1
        _, errors = process.communicate(timeout=300)
        code = process.returncode
        assert code in {0, *allowed}, errors
        if code == 0:
            _complete(found)
    return found


def _moment(out: Path, before: set[Path], rows: int) -> str:
    """Say what a run is at, for the statistics of the moments at which it was killed."""
    if any(out.rglob(".*.nuclix.tmp")):
        return "writing a result"
    if generations(out) <= before:
        return "starting"
    return "in the first row" if committed_rows(out) <= rows else "after a committed row"


def _complete(found: Torment) -> None:
    found.completions.append(results(found.out))
    found.remains += leftovers(found.out)
    shutil.rmtree(found.out)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a run with all its workers, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)


def terminate_group(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to all processes of a run, as batch systems do."""
    os.killpg(process.pid, signal.SIGTERM)


def committed_rows(out: Path) -> int:
    """Return the rows that all spools together have committed."""
    rows = 0
    for spool in out.rglob(".*.spool"):
        for state in sorted(spool.glob("0*/state.npz"))[-1:]:
            try:
                with np.load(io.BytesIO(state.read_bytes())) as content:
                    rows += int(content["done"][0])
            except FileNotFoundError:  # the slide has just been finished
                continue
    return rows


def kill_workers(process: subprocess.Popen[str], out: Path, kills: int, pick: random.Random) -> int:
    """Kill a run's workers at random moments, each time after a row or more, at most so often; return how often."""
    killed = rows = 0
    while killed < kills:
        while process.poll() is None and committed_rows(out) == rows:
            time.sleep(0.01)
        try:
            process.wait(pick.expovariate(5.0))
            break
        except subprocess.TimeoutExpired:
            for pid in [pid for pid in children_of(process.pid) if is_worker(pid)]:
                os.kill(pid, signal.SIGKILL)
            rows = committed_rows(out)
            killed += 1
    return killed
