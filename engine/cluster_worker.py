"""What a worker of a Dask cluster does: one slide a task, with model and plugins kept from task to task."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from nuclix.engine.errors import NuclixError, UsageError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.lock import LOCK_NAME
from nuclix.engine.messages import FromWorker, Refused, Stopped
from nuclix.engine.pipeline import Progress, Watch
from nuclix.engine.settings import RunSettings, default_workers
from nuclix.engine.slide_run import Tools, make_tools
from nuclix.engine.worker import RowClock, attempt

# Progress is told at most this often, in seconds: all of it passes through the scheduler.
_PROGRESS_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class ClusterTerms:
    """What the workers of a cluster are told.

    Attributes
    ----------
    settings : RunSettings
        What to do, with absolute paths.
    started, deadline : float
        When the run began and when it must have ended, in seconds since 1970.
    run : str
        Name of this run among others on the cluster.
    model : str
        SHA-256 of the model file that the client sees.
    version : str
        The client's version of nuclix.
    lock : str
        Content of the output folder's lock while this run holds it.
    """

    settings: RunSettings
    started: float
    deadline: float
    run: str
    model: str
    version: str
    lock: str


class ClusterWorker:
    """A worker's part in a run.

    Parameters
    ----------
    terms : ClusterTerms
        What to do.
    worker : distributed.Worker
        Where.

    Attributes
    ----------
    stop : threading.Event
        Set to make slides stop after the next committed row.
    """

    def __init__(self, terms: ClusterTerms, worker: Any) -> None:
        self.stop = threading.Event()
        self._terms = terms
        self._worker = worker
        self._loading = threading.Lock()
        self._tools: Tools | None = None

    def run(self, job: SlideJob) -> FromWorker:
        """Run a slide.

        Parameters
        ----------
        job : SlideJob
            The slide.

        Returns
        -------
        Done, Failed, Blocked, Stopped, Broken or Refused
        """
        if self.stop.is_set() or self._another_run_is_on():
            return Stopped()
        place = f"{socket.gethostname()} ({self._worker.address})"
        self._say(job, place)
        try:
            with self._loading:
                self._tools = self._tools or self._load()
        except NuclixError as error:
            return Refused(f"worker {place}: {error}")
        return attempt(job, self._tools, self._watch(job))

    def _load(self) -> Tools:
        from nuclix.engine.device import use_threads

        terms = self._terms
        if version("nuclix") != terms.version:
            raise UsageError(f"has nuclix {version('nuclix')}, not {terms.version}: install that there")
        if not terms.settings.out.is_dir():
            raise UsageError(
                f"does not see {terms.settings.out}: the cluster needs it, and the slides, at the same place"
            )
        use_threads(min(terms.settings.workers, default_workers()))
        tools = make_tools(terms.settings, terms.started)
        if tools.model.sha256 != terms.model:
            raise UsageError(f"has another file as model {terms.settings.model}: install the same one there")
        return tools

    def _watch(self, job: SlideJob) -> Watch:
        clock, last = RowClock(self._terms.deadline), 0.0

        def listen(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_INTERVAL:
                last = now
                facts = (progress.tiles, progress.tiles_total, progress.pixels, progress.nuclei, progress.rows)
                self._say(job, list(facts))

        return Watch(listen, lambda: clock.is_up() or self.stop.is_set() or self._another_run_is_on())

    def _say(self, job: SlideJob, facts: str | list[int]) -> None:
        """Tell the client where a slide has begun, or how far it has come."""
        self._worker.log_event(
            self._terms.run, {"slide": str(job.name), "worker": self._worker.address, "facts": facts}
        )

    def _another_run_is_on(self) -> bool:
        """Say whether the client has died and another has taken the output folder over."""
        try:
            return (self._terms.settings.out / LOCK_NAME).read_text() != self._terms.lock
        except OSError:  # a share may need its time to show the file
            return False


def worker_plugin(terms: ClusterTerms) -> Any:
    """Return what gives every worker of a cluster its `ClusterWorker`, those that join later, too."""
    from distributed import WorkerPlugin

    class NuclixPlugin(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            self.mine = ClusterWorker(terms, worker)

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
