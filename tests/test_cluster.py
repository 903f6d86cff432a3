"""Slides on a Dask cluster of several processes give the bytes of a local run, also when workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from nuclix.engine.batch import BatchOptions, RunSummary, StopFlag, run_batch
from nuclix.engine.errors import UsageError
from nuclix.engine.ledger import PENDING, Ledger
from overnight import (
    Notebook,
    install_faults,
    leftovers,
    make_model,
    make_slide,
    results,
    settings_for,
    wait_until,
)
from torment import committed_rows

WORKERS = 4

CLUSTER = f"""
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    options = dict(n_workers={WORKERS}, threads_per_worker=1, dashboard_address=None, worker_dashboard_address=None)
    with LocalCluster(**options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@dataclass
class Cluster:
    """A LocalCluster in a process of its own, which a test may not disturb by its warnings and threads."""

    process: subprocess.Popen[str]
    address: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="needs nuclix[dask]")
    folder = tmp_path_factory.mktemp("cluster")
    faults = install_faults(folder / "faults")
    script = folder / "cluster.py"
    script.write_text(CLUSTER)
    path = os.pathsep.join(filter(None, [str(faults), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "DASK_TEMPORARY_DIRECTORY": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    said: IO[str] = process.stdout  # type: ignore[assignment]
    yield Cluster(process, said.readline().strip())
    process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@dataclass
class Night:
    """A run in a thread, so that the test can disturb it."""

    slides: Path
    out: Path
    model: Path
    options: BatchOptions
    notes: Notebook = field(default_factory=Notebook)
    flag: StopFlag = field(default_factory=StopFlag)
    summary: RunSummary | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        settings = settings_for(self.out, self.model)
        try:
            self.summary = run_batch([str(self.slides)], settings, self.options, self.notes, self.flag)
        except BaseException as error:  # noqa: BLE001 (whatever a task raised is what the test looks at)
            self.error = error

    def end(self) -> RunSummary:
        self.thread.join(120)
        assert self.error is None, self.error
        assert self.summary is not None, "the run does not end"
        return self.summary


def processes_with_open_spools(out: Path) -> list[int]:
    """Return who writes a spool now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [os.readlink(link) for link in folder.iterdir()]  # noqa: PTH115
        except OSError:
            continue
        if any(link.startswith(str(out)) and ".spool/" in link for link in links):
            found.append(int(folder.parent.name))
    return found


def test_a_killed_worker_costs_a_row_and_the_files_are_those_of_a_local_run(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    for seed in range(6):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 900, 500)
    make_slide(tmp_path / "slides" / "sub" / "raise-always.tif", 7)
    out = tmp_path / "out"
    night = Night(tmp_path / "slides", out, model, BatchOptions(scheduler=cluster.address))
    wait_until(lambda: committed_rows(out) > 0 and len(processes_with_open_spools(out)) > 1)
    os.kill(processes_with_open_spools(out)[0], signal.SIGKILL)
    summary = night.end()
    assert len(summary.done) == 6 and not summary.stopped
    assert "broken plugin" in summary.failed["sub/raise-always"]
    assert any("was lost; begun elsewhere" in notice for notice in night.notes.notices)
    assert leftovers(out) == [".raise-always.spool"]
    ledger = Ledger(out, read_only=True)
    assert sorted(row.attempts for row in ledger.rows()) in ([1] * 6 + [2], [1] * 5 + [2] * 2)
    ledger.close()

    local = run_batch(
        [str(tmp_path / "slides")],
        settings_for(tmp_path / "local", model),
        BatchOptions(("cpu",)),
        Notebook(),
        StopFlag(),
    )
    assert len(local.done) >= 6
    assert {name: mark for name, mark in results(tmp_path / "local").items() if "raise" not in name} == results(out)

    again = run_batch(
        [str(tmp_path / "slides")],
        settings_for(out, model),
        BatchOptions(scheduler=cluster.address),
        Notebook(),
        StopFlag(),
    )
    assert len(again.skipped) == 6 and set(again.failed) == {"sub/raise-always"}


def test_a_stop_leaves_the_slides_after_a_row_and_a_resume_completes(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    for seed in range(6):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 900, 500)
    out = tmp_path / "out"
    night = Night(tmp_path / "slides", out, model, BatchOptions(scheduler=cluster.address))
    wait_until(lambda: committed_rows(out) > 0)
    night.flag.reason = "SIGTERM received"
    summary = night.end()
    assert summary.stopped == "SIGTERM received" and not summary.failed
    wait_until(lambda: not processes_with_open_spools(out))
    ledger = Ledger(out, read_only=True)
    assert {row.name for row in ledger.rows() if row.state == PENDING} == {str(n) for n in range(6)} - set(summary.done)
    ledger.close()
    summary = Night(tmp_path / "slides", out, model, BatchOptions(scheduler=cluster.address)).end()
    assert len(summary.done) + len(summary.skipped) == 6 and leftovers(out) == []


def test_a_slide_that_hangs_fails_and_its_worker_is_restarted(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    make_slide(tmp_path / "slides" / "hang-always.tif", 1)
    make_slide(tmp_path / "slides" / "memory-once.tif", 2)
    options = BatchOptions(scheduler=cluster.address, patience=6.0)
    night = Night(tmp_path / "slides", tmp_path / "out", model, options)
    summary = night.end()
    assert set(summary.done) == {"memory-once"}
    assert "no progress for" in summary.failed["hang-always"]
    assert any("out of memory" in notice for notice in night.notes.notices)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("address", "no Dask scheduler answers there"),
        ("out", "does not see"),
        ("distributed", r"pip install 'nuclix\[dask\]'"),
    ],
)
def test_what_can_not_work_is_said(
    change: str, said: str, cluster: Cluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine import cluster as module

    make_slide(tmp_path / "slides" / "a.tif", 1)
    options = BatchOptions(scheduler=cluster.address)
    if change == "address":
        monkeypatch.setattr(module, "_CONNECTING", 0.5)
        options = BatchOptions(scheduler="tcp://127.0.0.1:9")
    elif change == "distributed":
        monkeypatch.setitem(sys.modules, "distributed", None)
    else:
        terms = module._cluster_terms

        def elsewhere(given: object) -> object:
            found = terms(given)
            return module.replace(found, settings=module.replace(found.settings, out=Path("/nowhere")))

        monkeypatch.setattr(module, "_cluster_terms", elsewhere)
    with pytest.raises(UsageError, match=said):
        run_batch([str(tmp_path / "slides")], settings_for(tmp_path / "out", model), options, Notebook(), StopFlag())
    assert leftovers(tmp_path / "out") == []
