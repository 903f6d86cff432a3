"""Slides on a Dask cluster of several processes give the bytes of a local run, also when workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import pytest

from crash_harness import committed_rows
from end_to_end import (
    RecordingObserver,
    config_for,
    install_faults,
    leftovers,
    make_model,
    make_slide,
    results,
    wait_until,
)
from nuclix.engine.batch.executor import RunContext
from nuclix.engine.batch.ledger import PENDING, Ledger
from nuclix.engine.batch.run_state import RunSummary, StopFlag
from nuclix.engine.batch.runner import run_batch
from nuclix.engine.errors import UsageError

WORKERS = 2

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


def start_cluster(folder: Path) -> Cluster:
    """Start a cluster whose files lie in a folder; its process ends when its stdin closes."""
    pytest.importorskip("distributed", reason="needs the extra dask")
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
    return Cluster(process, said.readline().strip())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = start_cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@dataclass
class ClusterRun:
    """A run in a thread, so that the test can disturb it."""

    slides: Path
    out: Path
    model: Path
    options: dict[str, Any]
    notes: RecordingObserver = field(default_factory=RecordingObserver)
    flag: StopFlag = field(default_factory=StopFlag)
    summary: RunSummary | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        config = replace(config_for(self.out, self.model, self.slides), **self.options)
        try:
            self.summary = run_batch(config, self.notes, self.flag)
        except BaseException as error:  # noqa: BLE001 (whatever a task raised is what the test looks at)
            self.error = error

    def end(self) -> RunSummary:
        self.thread.join(120)
        assert self.error is None, self.error
        assert self.summary is not None, "the run does not end"
        return self.summary


def processes_with_open_checkpoints(out: Path) -> list[int]:
    """Return who writes a checkpoint now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [os.readlink(link) for link in folder.iterdir()]  # noqa: PTH115
        except OSError:
            continue
        if any(link.startswith(str(out)) and ".checkpoint/" in link for link in links):
            found.append(int(folder.parent.name))
    return found


def test_a_killed_worker_costs_a_row_and_the_files_are_those_of_a_local_run(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    for seed in range(6):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 900, 500)
    make_slide(tmp_path / "slides" / "sub" / "raise-always.tif", 7)
    out = tmp_path / "out"
    run = ClusterRun(tmp_path / "slides", out, model, {"scheduler": cluster.address})
    wait_until(lambda: committed_rows(out) > 0 and len(processes_with_open_checkpoints(out)) > 1)
    os.kill(processes_with_open_checkpoints(out)[0], signal.SIGKILL)
    summary = run.end()
    assert len(summary.done) == 6 and not summary.stopped
    assert "broken plugin" in summary.failed["sub/raise-always"]
    assert any("was lost; resuming elsewhere" in notice for notice in run.notes.notices)
    assert leftovers(out) == [".raise-always.checkpoint"]
    ledger = Ledger(out, read_only=True)
    assert sorted(row.attempts for row in ledger.rows()) in ([1] * 6 + [2], [1] * 5 + [2] * 2)
    ledger.close()

    local = run_batch(config_for(tmp_path / "local", model, tmp_path / "slides"), RecordingObserver(), StopFlag())
    assert len(local.done) >= 6
    assert {name: digest for name, digest in results(tmp_path / "local").items() if "raise" not in name} == results(out)

    config = replace(config_for(out, model, tmp_path / "slides"), scheduler=cluster.address)
    again = run_batch(config, RecordingObserver(), StopFlag())
    assert len(again.skipped) == 6 and set(again.failed) == {"sub/raise-always"}


@pytest.mark.slow
def test_a_stop_leaves_the_slides_after_a_row_and_a_resume_completes(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    for seed in range(6):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 900, 500)
    out = tmp_path / "out"
    run = ClusterRun(tmp_path / "slides", out, model, {"scheduler": cluster.address})
    wait_until(lambda: committed_rows(out) > 0)
    run.flag.reason = "SIGTERM received"
    summary = run.end()
    assert summary.stopped == "SIGTERM received" and not summary.failed
    wait_until(lambda: not processes_with_open_checkpoints(out))
    ledger = Ledger(out, read_only=True)
    assert {row.name for row in ledger.rows() if row.state == PENDING} == {str(n) for n in range(6)} - set(summary.done)
    ledger.close()
    summary = ClusterRun(tmp_path / "slides", out, model, {"scheduler": cluster.address}).end()
    assert len(summary.done) + len(summary.skipped) == 6 and leftovers(out) == []


@pytest.mark.slow
def test_a_slide_that_hangs_fails_and_its_worker_is_restarted(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    make_slide(tmp_path / "slides" / "hang-always.tif", 1)
    make_slide(tmp_path / "slides" / "memory-once.tif", 2)
    options = {"scheduler": cluster.address, "stall_timeout": 6.0}
    run = ClusterRun(tmp_path / "slides", tmp_path / "out", model, options)
    summary = run.end()
    assert set(summary.done) == {"memory-once"}
    assert "no progress for" in summary.failed["hang-always"]
    assert any("out of memory" in notice for notice in run.notes.notices)


def test_a_scheduler_that_dies_ends_the_run_in_one_line_and_it_can_be_resumed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine.batch import dask as module

    monkeypatch.setattr(module, "_LOST_TIMEOUT", 2.0)
    mortal = start_cluster(tmp_path)
    make_slide(tmp_path / "slides" / "a.tif", 1, 1200, 700)
    make_slide(tmp_path / "slides" / "hang-always.tif", 2, 600, 500)  # the run is not over before
    out = tmp_path / "out"
    run = ClusterRun(tmp_path / "slides", out, model, {"scheduler": mortal.address})
    wait_until(lambda: committed_rows(out) > 0)
    os.kill(mortal.process.pid, signal.SIGKILL)  # the scheduler; its workers leave when they notice
    mortal.process.communicate()
    summary = run.end()
    assert summary.blocked and not summary.failed
    assert "Dask scheduler" in summary.stopped
    wait_until(lambda: not processes_with_open_checkpoints(out))
    (tmp_path / "slides" / "hang-always.tif").unlink()
    again = run_batch(config_for(out, model, tmp_path / "slides"), RecordingObserver(), StopFlag())
    assert {*again.done, *again.skipped} == {"a"} and not again.failed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("address", "no Dask scheduler answers there"),
        ("out", "does not see"),
        ("distributed", r"pip install distributed"),
    ],
)
def test_what_can_not_work_is_said(
    change: str, said: str, cluster: Cluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nuclix.engine.batch import dask as module

    make_slide(tmp_path / "slides" / "a.tif", 1)
    options = {"scheduler": cluster.address}
    if change == "address":
        monkeypatch.setattr(module, "_CONNECT_TIMEOUT", 0.5)
        options = {"scheduler": "tcp://127.0.0.1:9"}
    elif change == "distributed":
        monkeypatch.setitem(sys.modules, "distributed", None)
    else:
        described = module._dask_run

        def elsewhere(given: RunContext) -> object:
            run = described(given)
            config = replace(run.context.config, out="/nowhere")
            return replace(run, context=replace(run.context, config=config))

        monkeypatch.setattr(module, "_dask_run", elsewhere)
    with pytest.raises(UsageError, match=said):
        config = replace(config_for(tmp_path / "out", model, tmp_path / "slides"), **options)
        run_batch(config, RecordingObserver(), StopFlag())
    assert leftovers(tmp_path / "out") == []
