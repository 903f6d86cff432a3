"""One table of ratios out of pytest-benchmark's JSON: every peer's time over ours, by median.

python tests/benchmarks/table.py build/bench.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

OURS = "nuclix"


def who(run: dict[str, Any]) -> str:
    """Return whose run it is: named by the benchmark, or by the test's parameter or name."""
    return str(run["extra_info"].get("who") or run.get("param") or run["name"].removeprefix("test_"))


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Return the lines: a group's name, our time, and what the peers take in multiples of it."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for run in runs:
        groups[str(run["group"])][who(run)] = 1e3 * run["stats"]["median"]
    lines = [f"{'work':44} {'nuclix, ms':>10}   peers, in multiples of it"]
    for group, times in sorted(groups.items()):
        mine = next((name for name in times if OURS in name), None)
        if mine is None:
            continue
        ours = times.pop(mine)
        peers = ", ".join(f"{name} {time / ours:.1f}" for name, time in sorted(times.items(), key=lambda item: item[1]))
        lines.append(f"{group:44} {ours:10.2f}   {peers}")
    return lines


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write("\n".join(table(found["benchmarks"])) + "\n")
