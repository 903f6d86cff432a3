"""Runs that are killed again and again until they are through, for the crash tests and their long versions."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from end_to_end import LONG, children_of, is_worker, leftovers, nuclix, results
from nuclix.engine.batch.layout import INDEX_NAME

# What a kill waits for before it waits for a random time, and how often it is chosen: the moments at which files change
# hands are short, and would hardly ever be met by chance.
AIMS = {"the start": 3, "a slide": 11, "a result being written": 4, "a result with its name": 2}
DRAFTS, RESULTS = ".*.nuclix.tmp", "*.geojson"
START = 3.0  # seconds in which a run has started; a kill from the start on falls into them
SHORT = 0.02  # seconds that a file changes hands
LOOKS = 100


@dataclass(slots=True)
class KillLog:
    """How often what was done to a run, and what came of it.

    `resumes` counts runs that found work of an earlier one, `resumed` finished slides of which a part came from one.
    """

    out: Path
    kills: int = 0
    rounds: int = 0
    resumes: int = 0
    resumed: int = 0
    completions: list[dict[str, str]] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    remains: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        moments = ", ".join(f"{count} {moment}" for moment, count in self.moments.most_common())
        return (
            f"{self.kills} kills ({moments}) in {self.rounds} runs, {self.resumes} of which went on with earlier work; "
            f"{len(self.completions)} times through, {self.resumed} slides done in pieces; {self.seconds:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What lies in an output folder when a run begins."""

    out: Path
    attempts: frozenset[Path]
    rows: dict[str, int]
    drafts: frozenset[Path]
    results: frozenset[Path]

    def begun(self) -> bool:
        """Return whether a worker has started a slide since: there is a new attempt of a checkpoint."""
        return not attempts(self.out) <= self.attempts

    def writing(self) -> bool:
        """Return whether a result is being written, under its temporary name."""
        return not set(self.out.glob(DRAFTS)) <= self.drafts

    def written(self) -> bool:
        """Return whether a result has got its name since."""
        return not set(self.out.glob(RESULTS)) <= self.results

    def moment(self) -> str:
        """Return what the run is doing."""
        checkpoints = {path.name.removesuffix(".checkpoint")[1:] for path in self.out.glob(".*.checkpoint")}
        named = {path.stem for path in set(self.out.glob(RESULTS)) - self.results}
        if self.writing():
            return "while a result was written"
        if not self.begun():
            return "while it started"
        if named & checkpoints or not checkpoints:
            return "between slides"
        further = any(count > self.rows.get(name, 0) for name, count in rows_by_slide(self.out).items())
        return "after a committed row" if further else "in the first row"


def snapshot(out: Path) -> Snapshot:
    """Return what lies in an output folder."""
    found = (attempts(out), rows_by_slide(out), frozenset(out.glob(DRAFTS)), frozenset(out.glob(RESULTS)))
    return Snapshot(out, *found)


def attempts(out: Path) -> frozenset[Path]:
    """Return the attempts of all checkpoints."""
    return frozenset(listed(out, ".*.checkpoint/0*"))


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern below a folder in which a run removes folders meanwhile."""
    for _ in range(LOOKS):
        with suppress(FileNotFoundError):  # pathlib's own walk does not expect that
            return sorted(folder.rglob(pattern))
    raise AssertionError(f"{folder} changed at each of {LOOKS} looks")


def kill_repeatedly(
    command: Sequence[object],
    out: Path,
    kills: int,
    kill: Callable[[subprocess.Popen[str]], None],
    pick: random.Random,
    allowed: set[int],
    *,
    pace: float = 1.5,
) -> KillLog:
    """Run `command` and kill it at random moments until it has been killed so often; start again whenever it is done.

    At work a kill comes after 1 / `pace` seconds on average.
    """
    found, begin = KillLog(out), time.monotonic()
    code = -1
    while found.kills < kills or code != 0:
        found.rounds += 1
        before = snapshot(out)
        found.resumes += bool(before.rows or before.results)
        process = nuclix(*command)
        aim = pick.choices(list(AIMS), list(AIMS.values()))[0]
        _await(process, before, aim)
        try:
            process.wait(_then(aim, pick, pace))
        except subprocess.TimeoutExpired:
            if found.kills < kills:
                found.moments[before.moment()] += 1
                kill(process)
                found.kills += 1
        _, errors = process.communicate(timeout=LONG)
        code = process.returncode
        assert code in {0, *allowed}, errors
        if code == 0:
            _complete(found)
    found.seconds = time.monotonic() - begin
    return found


def _await(process: subprocess.Popen[str], before: Snapshot, aim: str) -> None:
    """Wait for what a kill aims at, or for the end of the run."""
    signs = {
        "the start": lambda: True,
        "a slide": before.begun,
        "a result being written": before.writing,
        "a result with its name": before.written,
    }
    while process.poll() is None and not signs[aim]():
        time.sleep(0.001)


def _then(aim: str, pick: random.Random, pace: float) -> float:
    """Return the seconds from there to the kill."""
    if aim == "the start":
        return pick.uniform(0, START)
    return pick.expovariate(pace) if aim == "a slide" else pick.uniform(0, SHORT)


def _complete(found: KillLog) -> None:
    found.completions.append(results(found.out))
    found.remains += leftovers(found.out)
    records = [
        json.loads(path.read_text())
        for path in found.out.rglob("*.json")
        if ".nuclix" not in path.parts and path.name != INDEX_NAME
    ]
    found.resumed += sum(record["counts"]["rows_resumed"] > 0 for record in records)
    shutil.rmtree(found.out)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a run with all its workers, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)


def terminate_group(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to all processes of a run, as batch systems do."""
    os.killpg(process.pid, signal.SIGTERM)


def rows_by_slide(out: Path) -> dict[str, int]:
    """Return the rows that each checkpoint has committed."""
    rows = {}
    for checkpoint in listed(out, ".*.checkpoint"):
        for state in listed(checkpoint, "0*/state.npz")[-1:]:
            try:
                with np.load(io.BytesIO(state.read_bytes())) as content:
                    rows[checkpoint.name.removesuffix(".checkpoint")[1:]] = int(content["done"][0])
            except FileNotFoundError:  # the slide has just been finished
                continue
    return rows


def committed_rows(out: Path) -> int:
    """Return the rows that all checkpoints together have committed."""
    return sum(rows_by_slide(out).values())


def kill_workers(
    process: subprocess.Popen[str], out: Path, kills: int, pick: random.Random, *, pace: float = 5.0
) -> Counter[str]:
    """Kill a run's workers at random moments, each time after a row or more, at most so often; return at which."""
    moments: Counter[str] = Counter()
    before = snapshot(out)
    while moments.total() < kills:
        while process.poll() is None and rows_by_slide(out) == before.rows:
            time.sleep(0.01)
        try:
            process.wait(pick.expovariate(pace))
            break
        except subprocess.TimeoutExpired:
            workers = [pid for pid in children_of(process.pid) if is_worker(pid)]
            moments[before.moment()] += bool(workers)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            before = snapshot(out)
    return moments
