"""Worker side of `DaskExecutor`: one slide per task, with model and plugins kept between tasks."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import FromWorker, RunContext, Stopped, WorkerRejected
from nuclix.engine.batch.layout import LOCK_NAME
from nuclix.engine.batch.worker import RowClock, process_slide
from nuclix.engine.errors import NuclixError, UsageError
from nuclix.engine.registry import installed_version
from nuclix.engine.run_config import default_threads
from nuclix.engine.segmentation.hooks import Progress, RunHooks
from nuclix.engine.segmentation.slide import SegmentationContext, make_context

# Progress is reported at most this often, in seconds: all of it passes through the scheduler.
_PROGRESS_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class DaskRun:
    """A run, as the workers of a cluster need to know it.

    Attributes
    ----------
    context : RunContext
        The run, with absolute paths.
    name : str
        Name of this run among others on the cluster.
    model : str
        SHA-256 of the client's model file.
    version : str
        The client's version of nuclix.
    lock : str
        Content of the output folder's lock while this run holds it.
    """

    context: RunContext
    name: str
    model: str
    version: str
    lock: str


class ClusterWorker:
    """A worker's part in a run.

    Parameters
    ----------
    run : DaskRun
        The run.
    worker : distributed.Worker
        Where.

    Attributes
    ----------
    stop : threading.Event
        Set to make slides stop after the next committed row.
    """

    def __init__(self, run: DaskRun, worker: Any) -> None:
        self.stop = threading.Event()
        self._run = run
        self._worker = worker
        self._loading = threading.Lock()
        self._contexts = threading.local()  # slides of one worker run in threads; each has a network of its own

    def run(self, job: SlideJob) -> FromWorker:
        """Run a slide.

        Parameters
        ----------
        job : SlideJob
            The slide.

        Returns
        -------
        Done, Failed, OutputUnavailable, Stopped, WorkerFailed or WorkerRejected
        """
        if self.stop.is_set() or self._is_superseded():
            return Stopped()
        place = f"{socket.gethostname()} ({self._worker.address})"
        self._report(job, place)
        try:
            shared = self._context()
        except NuclixError as error:
            return WorkerRejected(f"worker {place}: {error}")
        return process_slide(job, shared, self._hooks(job))

    def _context(self) -> SegmentationContext:
        """Return this thread's model and plugins: a predictor's batch is of the slide that it is on."""
        found: SegmentationContext | None = getattr(self._contexts, "shared", None)
        if found is None:
            with self._loading:
                found = self._contexts.shared = self._load()
        return found

    def _load(self) -> SegmentationContext:
        run = self._run
        if installed_version("nuclix") != run.version:
            raise UsageError(f"has nuclix {installed_version('nuclix')}, not {run.version}: install that there")
        if not run.context.config.output_folder.is_dir():
            raise UsageError(
                f"does not see {run.context.config.out}: the cluster needs it, and the slides, at the same place"
            )
        threads = min(run.context.config.threads, default_threads())
        shared = make_context(run.context.config, run.context.started, threads)
        if shared.model.sha256 != run.model:
            raise UsageError(f"has another file as model {run.context.config.model}: install the same one there")
        return shared

    def _hooks(self, job: SlideJob) -> RunHooks:
        clock, last = RowClock(self._run.context.deadline), 0.0

        def on_progress(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_INTERVAL:
                last = now
                facts = (progress.tiles, progress.tiles_total, progress.pixels, progress.nuclei, progress.rows)
                self._report(job, list(facts))

        return RunHooks(on_progress, lambda: clock.is_up() or self.stop.is_set() or self._is_superseded())

    def _report(self, job: SlideJob, facts: str | list[int]) -> None:
        """Tell the client where a slide has begun, or how far it has come."""
        self._worker.log_event(self._run.name, {"slide": str(job.name), "worker": self._worker.address, "facts": facts})

    def _is_superseded(self) -> bool:
        """Return whether the client has died and another run has taken over the output folder."""
        try:
            return (self._run.context.config.output_folder / LOCK_NAME).read_text() != self._run.lock
        except OSError:  # a share may need its time to show the file
            return False


def worker_plugin(run: DaskRun) -> Any:
    """Return what gives every worker of a cluster its `ClusterWorker`, those that join later, too."""
    from distributed import WorkerPlugin

    class NuclixPlugin(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            self.mine = ClusterWorker(run, worker)

    return NuclixPlugin()


def run_on_worker(job: SlideJob, run: str) -> FromWorker:
    """Run a slide: the task that the cluster is given.

    Parameters
    ----------
    job : SlideJob
        The slide.
    run : str
        Name under which the run's plugin is registered.
    """
    from distributed import get_worker

    plugin: Any = get_worker().plugins[run]
    mine: ClusterWorker = plugin.mine
    return mine.run(job)


def ask_to_stop(run: str, dask_worker: Any) -> None:
    """Run on every worker: make its slides of this run stop after the next committed row."""
    if run in dask_worker.plugins:
        dask_worker.plugins[run].mine.stop.set()
