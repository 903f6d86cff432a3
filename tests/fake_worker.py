"""A worker that computes nothing: it says on which device it was started, and dies or refuses when a marker says so."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from nuclix.engine.batch.executor import Failed, Ready, RunContext, SlideProgress, Stop, Stopped, WorkerRejected
from nuclix.engine.segmentation.hooks import Progress

SLICE = 0.02  # seconds of work between two looks at the pipe


def run_worker(connection: Connection, context: RunContext, cpu_workers: int) -> None:
    """Stand in for `nuclix.engine.batch.worker.run_worker`; a slide is over once its file is gone, or at a stop."""
    config = context.config
    if (config.output_folder / f"lost-{config.device}").exists():
        connection.send(WorkerRejected(f"no device {config.device!r}"))
        return
    if (config.output_folder / f"taken-{config.device}").exists():
        connection.send(WorkerRejected(f"{config.device} is out of memory", device=True))
        return
    connection.send(Ready())
    while True:
        job = connection.recv()
        if isinstance(job, Stop):
            continue
        progress = Progress(1, 2, 3, 4, 5)
        connection.send(SlideProgress(progress))
        if job.path.name == "deadly":
            job.path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while job.path.exists() and not connection.poll():
            time.sleep(SLICE)
        stopped = connection.poll() and isinstance(connection.recv(), Stop)
        said = f"{config.device}, {config.threads} threads, shares {cpu_workers}, process {os.getpid()}"
        connection.send(Stopped() if stopped else Failed(said))
