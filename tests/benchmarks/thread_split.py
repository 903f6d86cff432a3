"""How many threads for the network, how many for the rest? Whole runs of one slide, each pair of numbers in turn.

python tests/benchmarks/thread_split.py SLIDE [--runtime openvino] [--network 1,2] [--rest 1,2] [--repeat 3]

The network's threads are bounded by OMP_NUM_THREADS, those for reading and for splitting are `--threads` each. Rounds
go over all pairs, so that what else changes on the machine meets all of them. Only an idle machine gives an answer. A
table is written: wall time of the slide without start-up (shortest of all rounds), the time of its network stage, and
processor time; then whether all results were the same bytes, as they have to be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "nuclix.engine", "run"]


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds of the slide, of its network stage, and of all CPUs for the command; hash of the result."""

    wall: float
    network: float
    cpu: float
    sha256: str


def run(slide: Path, network: int, rest: int, options: Sequence[str]) -> Timing:
    """Segment the slide once."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [*COMMAND, str(slide), "--out", folder, "--device", "cpu", "--quiet", "--threads", str(rest), *options]
        subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": str(network)}, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = json.loads((Path(folder) / f"{slide.stem}.json").read_text())["seconds"]
        digest = hashlib.sha256((Path(folder) / f"{slide.stem}.geojson").read_bytes()).hexdigest()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(seconds["wall"], seconds["network"], cpu, digest)


def main() -> None:
    """Print the table."""
    cpus = len(os.sched_getaffinity(0))
    usual = ",".join(str(number) for number in sorted({1, max(1, cpus // 2), max(1, cpus - 1), cpus}))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--model", default="dist-kumar16")
    parser.add_argument("--network", default=usual, help="threads of the network (default: %(default)s)")
    parser.add_argument("--rest", default=usual, help="threads for reading, and for splitting (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    pairs = [(int(first), int(second)) for first in args.network.split(",") for second in args.rest.split(",")]
    options = ["--runtime", args.runtime, "--model", args.model]
    found: dict[tuple[int, int], list[Timing]] = {pair: [] for pair in pairs}
    for _ in range(args.repeat):
        for pair in pairs:
            found[pair].append(run(args.slide, *pair, options))
    sys.stdout.write(f"{cpus} CPUs, load {os.getloadavg()[0]:.1f}\nnetwork  rest   wall s  network s   CPU s\n")
    for (first, second), timings in sorted(found.items(), key=lambda item: min(one.wall for one in item[1])):
        best = min(timings, key=lambda one: one.wall)
        sys.stdout.write(f"{first:7d} {second:5d} {best.wall:8.2f} {best.network:10.2f} {best.cpu:7.1f}\n")
    same = len({one.sha256 for timings in found.values() for one in timings}) == 1
    sys.stdout.write(f"results: {'the same bytes' if same else 'DIFFER'}\n")


if __name__ == "__main__":
    main()
