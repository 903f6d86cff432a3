"""CPU quotas of control groups of both versions, on trees of files as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nuclix.engine.cpus import cpu_quota, usable_cpus


def tree(folder: Path, groups: str, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> Path:
    """Write a tree: lines of cgroup, mounts (root, point, type and options), and files below the mount points."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    lines = [
        f"{30 + index} 23 0:{index} {root} {folder / point} rw,nosuid shared:9 - {kind}"
        for index, (root, point, kind) in enumerate(mounts)
    ]
    (proc / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "\n".join(lines) + "\n")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc


V2 = ("/", "sys", "cgroup2 cgroup rw,nsdelegate")
V1 = ("/", "sys/cpu", "cgroup cgroup rw,cpu,cpuacct")


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("torn", None)]
)
def test_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    proc = tree(tmp_path, "0::/user/job\n", [V2], {"sys/user/job/cpu.max": text})
    assert cpu_quota(proc) == quota


def test_the_quota_of_a_group_above_counts(tmp_path: Path) -> None:
    files = {"sys/user/job/cpu.max": "800000 100000", "sys/user/cpu.max": "200000 100000", "sys/cpu.max": "max 100000"}
    assert cpu_quota(tree(tmp_path, "0::/user/job\n", [V2], files)) == 2


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("300000", 3.0)])
def test_version_1(tmp_path: Path, quota: str, expected: float | None) -> None:
    files = {"sys/cpu/job/cpu.cfs_quota_us": quota, "sys/cpu/job/cpu.cfs_period_us": "100000\n"}
    proc = tree(tmp_path, "5:memory:/other\n4:cpu,cpuacct:/job\n0::/\n", [V1, V2], files)
    assert cpu_quota(proc) == expected


def test_in_a_container_the_own_group_is_the_mount_point(tmp_path: Path) -> None:
    mount = ("/docker/abc", "sys/cpu", "cgroup cgroup rw,cpu,cpuacct")
    files = {"sys/cpu/cpu.cfs_quota_us": "100000", "sys/cpu/cpu.cfs_period_us": "100000"}
    assert cpu_quota(tree(tmp_path, "4:cpu,cpuacct:/docker/abc\n", [mount], files)) == 1


def test_threads_are_those_of_the_quota_rounded_up_and_never_more_than_the_affinity(tmp_path: Path) -> None:
    affinity = len(os.sched_getaffinity(0))
    for name, text, expected in (
        ("a", "10000 100000", 1),
        ("b", "110000 100000", min(affinity, 2)),
        ("c", "99900000 100000", affinity),
        ("d", "max 100000", affinity),
    ):
        (tmp_path / name).mkdir()
        assert usable_cpus(tree(tmp_path / name, "0::/\n", [V2], {"sys/cpu.max": text})) == expected
    assert usable_cpus(tmp_path / "missing") == affinity
