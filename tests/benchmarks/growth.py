"""Time and memory of whole runs as slides grow, and of the plain script: a table in Markdown.

python tests/benchmarks/growth.py SLIDE [SLIDE ...] [--model MODEL.pt] [--plain-up-to PX] [--repeat N] [--threads N]

Both use the same network, by default one that costs next to nothing. Runs of both alternate; the smallest figures are
given. CPU time is that of all processes with their start, memory that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cheap_network import save_cheap_model
from nuclix.engine.slide.open import open_slide

PLAIN_SCRIPT = Path(__file__).with_name("plain_script.py")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that pass, seconds of all processes' CPU time, and bytes of the largest process."""

    wall: float
    cpu: float
    memory: int


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: {said.decode(errors='replace')[-500:]}")
    wall = time.perf_counter() - started
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT)


def least(costs: Sequence[Cost]) -> str:
    """Return the smallest figures as cells of a table; dashes where there are none."""
    if not costs:
        return "- | - | -"
    memory = min(cost.memory for cost in costs) / 1e6
    return f"{min(c.wall for c in costs):.1f} s | {min(c.cpu for c in costs):.1f} s | {memory:.0f} MB"


def measured(slide: Path, model: Path, options: argparse.Namespace) -> str:
    """Return the table's line of one slide."""
    size = open_slide(slide).info.levels[0]
    plain = max(size.height, size.width) <= options.plain_up_to
    own: list[Cost] = []
    peer: list[Cost] = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(prefix="nuclix-growth-") as folder:
            out = Path(folder)
            own.append(
                cost_of(
                    [
                        sys.executable, "-m", "nuclix.engine.cli", "run", str(slide), "--out", str(out / "own"),
                        "--model", str(model), "--format", "geojson", "--measurements", "shape", "--device", "cpu",
                        "--threads", str(options.threads),
                    ]
                )
            )  # fmt: skip
            (record,) = (json.loads(path.read_text()) for path in (out / "own").glob(f"{slide.stem}.json"))
            if plain:
                peer.append(
                    cost_of([sys.executable, str(PLAIN_SCRIPT), str(slide), str(model), str(out / "plain.geojson")])
                )
    counts = record["counts"]
    facts = f"{size.width:,} x {size.height:,} px | {counts['tissue_mm2']:.2f} mm2 | {counts['nuclei']:,}"
    return f"| {facts} | {least(own)} | {least(peer)} |\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, help="model file; by default a network that costs next to nothing")
    parser.add_argument("--plain-up-to", type=int, default=16384, help="largest edge given to the plain script")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    sys.stdout.write(
        "| slide | tissue | nuclei | nuclix | CPU time | memory | plain script | CPU time | memory |\n"
        f"|{' --- |' * 9}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or save_cheap_model(Path(folder) / "cheap.pt")
        for slide in options.slides:
            sys.stdout.write(measured(slide, model, options))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
