"""A worker that computes nothing: it says on which device it was started, and dies or refuses when a marker says so."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from nuclix.engine.messages import Advanced, Failed, Ready, Refused, Stop, Stopped
from nuclix.engine.pipeline import Progress
from nuclix.engine.worker import WorkerTerms

SLICE = 0.02  # seconds of work between two looks at the pipe


def work(connection: Connection, terms: WorkerTerms) -> None:
    """Stand in for `nuclix.engine.worker.work`; a slide is over once its file is gone, or at a stop."""
    settings = terms.settings
    if (settings.out / f"lost-{settings.device}").exists():
        connection.send(Refused(f"no device {settings.device!r}"))
        return
    connection.send(Ready())
    while True:
        job = connection.recv()
        if isinstance(job, Stop):
            continue
        progress = Progress(1, 2, 3, 4, 5)
        connection.send(Advanced(progress))
        if job.path.name == "deadly":
            job.path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while job.path.exists() and not connection.poll():
            time.sleep(SLICE)
        stopped = connection.poll() and isinstance(connection.recv(), Stop)
        said = f"{settings.device}, {settings.workers} threads, shares {terms.shares}, process {os.getpid()}"
        connection.send(Stopped() if stopped else Failed(said))
