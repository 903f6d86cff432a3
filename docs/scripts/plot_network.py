"""Plot the speed of the network against the patch size, from what `nuclix bench network --json FILE` wrote.

    python docs/scripts/plot_network.py docs/benchmarks/network.json docs/images/network-speed.svg

Needs the extra ``plots``. The speed is that of one core: pixels that go in by the CPU time of a forward pass, which
other programs on the machine change less than its wall time.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

PIXELS_PER_MPX = 1e6


def plot(source: Path, target: Path) -> None:
    """Draw one line for each runtime and precision."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "nuclix"  # the same figures give the same file
    from matplotlib import pyplot

    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in json.loads(source.read_text())["network"]:
        if row["cpu_seconds"] > 0:
            speed = row["batch"] * row["size"] ** 2 / PIXELS_PER_MPX / row["cpu_seconds"]
            lines[f"{row['runtime']}, {row['precision']}, batch {row['batch']}"].append((row["size"], speed))
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set(xlabel="edge of a patch, px", ylabel="Mpx/s of one core", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(target, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    plot(Path(sys.argv[1]), Path(sys.argv[2]))
