"""Print which packages of nuclix import which, the longest chain, and what ``nuclix run`` loads.

Usage: ``python tests/import_graph.py``
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from sources import PACKAGES, dotted, imports, modules

STARTS = ("nuclix.engine.cli.run", "nuclix.engine.batch.runner", "nuclix.engine.batch.worker")
# What a run loads in its two processes: that of the command, and the worker of a device.
LOADED = {
    "command": "import nuclix.engine.cli.main, nuclix.engine.batch.runner, nuclix.engine.progress.display",
    "worker": "import nuclix.engine.batch.worker",
}
COUNT = "; import sys; print(sum(name.startswith('nuclix.') for name in sys.modules))"


def package_of(path: Path) -> str:
    """Return the package of a module: engine/batch, engine (its top), plugins/readers, ext."""
    return "/".join(path.parts[:-1][:2])


def graph(*, at_top: bool) -> dict[str, set[str]]:
    """Return every module's imports of other modules of nuclix, or only those that run when it is imported."""
    names = {dotted(path): path for path in modules(*PACKAGES)}
    found: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for seen in imports(path):
            if at_top and not seen.at_top:
                continue
            target = seen.name if seen.name in names else seen.name.rpartition(".")[0]
            if target in names and target != name:
                found[name].add(target)
    return found


def longest_chain(edges: Mapping[str, set[str]], start: str) -> list[str]:
    """Return the longest chain of imports from a module; a module stands in it once."""
    known: dict[str, list[str]] = {}

    def chain(name: str, above: frozenset[str]) -> list[str]:
        if name not in known:
            below = [chain(target, above | {name}) for target in sorted(edges[name]) if target not in above]
            known[name] = [name, *max(below, key=len, default=[])]
        return known[name]

    return chain(start, frozenset())


def lines() -> Iterator[str]:
    """Yield the report."""
    paths = {dotted(path): path for path in modules(*PACKAGES)}
    edges = graph(at_top=False)
    counts = Counter((package_of(paths[name]), package_of(paths[target])) for name in edges for target in edges[name])
    yield "package -> package (imports)"
    for source in sorted({source for source, _ in counts}):
        targets = sorted((target, n) for (one, target), n in counts.items() if one == source and target != source)
        yield f"  {source}: {', '.join(f'{target} ({n})' for target, n in targets) or 'nothing'}"
    for start in STARTS:
        found = longest_chain(graph(at_top=True), start)
        yield f"longest chain of imports from {start}: {len(found)} modules"
        yield f"  {' -> '.join(name.removeprefix('nuclix.') for name in found)}"
    for process, code in LOADED.items():
        done = subprocess.run([sys.executable, "-c", code + COUNT], capture_output=True, text=True, check=True)
        yield f"modules of nuclix that the {process} of a run loads: {done.stdout.strip()}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
