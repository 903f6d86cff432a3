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


def state_of(out: Path) -> str:
    """Say what a run is at, for the statistics of the moments at which it was killed."""
    if not (out / "nuclix.db").exists():
        return "starting"
    if any(out.rglob(".*.nuclix.tmp")):
        return "writing a result"
    spools = list(out.rglob(".*.spool"))
    if not spools:
        return "between slides"
    committed = any((generation / "state.npz").exists() for spool in spools for generation in spool.glob("0*"))
    return "after a committed row" if committed else "in the first row"


def torment(
    command: Sequence[object],
    out: Path,
    kills: int,
    kill: Callable[[subprocess.Popen[str]], None],
    pick: random.Random,
    allowed: set[int],
) -> Torment:
    """Run `command` and kill it at random moments until it has been killed so often; begin anew whenever it is done."""
    found = Torment(out)
    while found.kills < kills:
        found.rounds += 1
        process = nuclix(*command)
        # Every fifth time anywhere from the start on; otherwise once slides are at work.
        if pick.random() > 0.2:
            while process.poll() is None and not any(out.rglob(".*.spool")):
                time.sleep(0.01)
            delay = pick.expovariate(1.0)
        else:
            delay = pick.uniform(0, 4)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            found.moments[state_of(out)] += 1
            kill(process)
            found.kills += 1
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            _complete(found)
        assert process.returncode in {0, *allowed}, errors
    while process.returncode != 0:
        process = nuclix(*command)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    if out.exists():
        _complete(found)
    return found


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
