"""How many CPUs this process may use: its affinity, and the quotas of control groups, as containers have them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
_V2 = "cgroup2"
_V1 = "cgroup"
_CPU = "cpu"
_FIELDS_BEFORE_OPTIONAL = 6  # of a line of mountinfo: id, parent, device, root, mount point, options


def usable_cpus(proc: Path = PROC) -> int:
    """Return the number of CPUs that this process may use: those of its affinity, or fewer where a quota says so.

    A quota of 150 % of a CPU counts as 2: a thread more than it pays for idles, one less would leave half a CPU unused.

    Parameters
    ----------
    proc : Path
        Where ``cgroup`` and ``mountinfo`` of the process are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(proc: Path = PROC) -> float | None:
    """Return the smallest CPU quota of this process' control groups in CPUs, or None where there is none.

    Both versions of control groups are read (``cpu.max``; ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``), and all
    groups above the process' own, for a quota holds for everything below.
    """
    quotas = [quota for folder in _folders(proc) for quota in (_quota_v2(folder), _quota_v1(folder)) if quota]
    return min(quotas, default=None)


def _folders(proc: Path) -> Iterator[Path]:
    """Yield the folders of the process' groups that may limit its CPU time, from its own up to the mounted root."""
    groups = dict(_groups(proc))
    for kind, root, mount in _mounts(proc):
        group = groups.get(kind)
        if group is None:
            continue
        # In a container the root of the mount is often the process' own group, which is then at the mount point.
        inner = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        for part in (inner, *inner.parents):
            yield mount / part


def _groups(proc: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield kind of hierarchy and the group in it, from lines such as ``4:cpu,cpuacct:/user`` and ``0::/a``."""
    for line in _lines(proc / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield _V2, PurePosixPath(path)
        elif _CPU in controllers.split(","):
            yield _V1, PurePosixPath(path)


def _mounts(proc: Path) -> Iterator[tuple[str, PurePosixPath, Path]]:
    """Yield kind, root and mount point of the hierarchies that have the controller of CPUs."""
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, types = before.split(" "), after.split(" ")
        if len(fields) < _FIELDS_BEFORE_OPTIONAL or len(types) < 3:
            continue
        if types[0] == _V2 or (types[0] == _V1 and _CPU in types[2].split(",")):
            yield types[0], PurePosixPath(fields[3]), Path(fields[4])


def _quota_v2(folder: Path) -> float | None:
    """Return the quota of ``cpu.max``: microseconds (or max) and period."""
    for line in _lines(folder / "cpu.max"):
        quota, _, period = line.partition(" ")
        return _ratio(quota, period)
    return None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (_lines(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _ratio(quota[0], period[0]) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """Return quota / period, or None where there is no quota: "max", or -1."""
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
