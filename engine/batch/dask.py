"""Run slides on a Dask cluster: each slide is a task, and all state is in the shared output folder.

The client submits slides and keeps the ledger. The slide of a lost worker is run elsewhere by Dask, from the last
committed row; if the worker is alive after all, it notices that its checkpoint has a new attempt, and stops.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from nuclix.engine import registry
from nuclix.engine.batch.dask_worker import DaskRun, ask_to_stop, run_on_worker, worker_plugin
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import (
    Failed,
    FromWorker,
    Notice,
    RunContext,
    SlideEvent,
    SlideProgress,
    SlideStarted,
    Stopped,
    WorkerFailed,
    WorkerLost,
    WorkerRejected,
)
from nuclix.engine.batch.layout import LOCK_NAME
from nuclix.engine.batch.processes import SUSPENDED
from nuclix.engine.errors import UsageError
from nuclix.engine.inference.model_file import find_model, model_hash
from nuclix.engine.segmentation.hooks import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_TIMEOUT = 10.0  # seconds
# A scheduler that has not answered for so long, in seconds, is gone.
_LOST_TIMEOUT = 10.0
_EXIT_TIMEOUT = 5.0
_GPU = "GPU"

T = TypeVar("T")
Event = tuple[SlideJob, SlideEvent] | Notice


@dataclass(slots=True)
class _Task:
    """A slide that was submitted; `worker` is empty until one has started it."""

    job: SlideJob
    future: Future
    worker: str = ""
    advanced: bool = False
    collected: bool = False
    heard: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Message:
    """A worker's message about a slide: where it has started, or its progress."""

    slide: str
    worker: str
    facts: str | list[int]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A task that is over."""

    slide: str
    future: Future
    outcome: FromWorker | BaseException


class DaskExecutor:
    """The workers of a Dask cluster; an `Executor`.

    Parameters
    ----------
    context : RunContext
        The run.
    address : str
        The scheduler's, such as ``tcp://node1:8786``.

    Raises
    ------
    UsageError
        If Dask is not installed, the scheduler does not answer, or its workers can't run nuclix.
    """

    def __init__(self, context: RunContext, address: str) -> None:
        self._client = _connected(address)
        self._stall_timeout = context.config.stall_timeout
        self._tasks: dict[str, _Task] = {}
        self._messages: queue.SimpleQueue[_Message | _Ended] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._count = 0
        self._proven = False
        self._connected_at = time.monotonic()
        self._stopping = False
        self._looked = time.monotonic()
        self._run = _dask_run(context)
        try:
            plugin = worker_plugin(self._run)
            _within(_CONNECT_TIMEOUT, lambda: self._client.register_plugin(plugin, name=self._run.name))
        except Exception as error:
            self._client.close()
            raise UsageError(f"{address}: its workers can't run nuclix ({type(error).__name__}: {error})") from error
        self._client.subscribe_topic(self._run.name, lambda event: self._messages.put(_Message(**event[1])))
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        self._resources = {_GPU: 1} if any(worker["resources"].get(_GPU) for worker in workers) else None

    def wants(self) -> bool:
        """Return True: an adaptive cluster grows with the tasks that wait at its scheduler."""
        return not self._stopping and bool(self._client.status == "running")

    def is_alive(self) -> bool:
        """Return whether the scheduler is connected, or was a few seconds ago."""
        now = time.monotonic()
        if self._client.status == "running":
            self._connected_at = now
        return now - self._connected_at < _LOST_TIMEOUT

    def submit(self, job: SlideJob) -> None:
        """Give a slide to the scheduler; those submitted first have precedence."""
        self._count += 1
        try:
            future = self._client.submit(
                run_on_worker,
                job,
                self._run.name,
                key=f"{self._run.name}-{self._count}",
                pure=False,
                priority=-self._count,
                resources=self._resources,
            )
        except Exception as error:  # noqa: BLE001 (of a scheduler that has gone just now; `is_alive` ends the run)
            self._events.append((job, WorkerLost(f"{type(error).__name__}: {error}")))
            return
        self._tasks[str(job.name)] = _Task(job, future)

    def poll(self, seconds: float) -> Iterator[Event]:
        """Yield the workers' messages, and which slides have ended.

        Raises
        ------
        UsageError
            If the first worker that answers can't take part.
        """
        self._collect()
        with suppress(queue.Empty):
            self._receive(self._messages.get(timeout=0 if self._events else seconds))
            while True:
                self._receive(self._messages.get_nowait())
        self._fail_stalled()
        events, self._events = self._events, []
        yield from events

    def _collect(self) -> None:
        """Fetch what finished tasks returned; that waits where a worker was lost just then and its slide is redone."""
        for name, task in self._tasks.items():
            if not task.collected and task.future.done():
                task.collected = True
                self._in_background(partial(self._fetch, name, task.future))

    def _fetch(self, name: str, future: Future) -> None:
        try:
            outcome: FromWorker | BaseException = future.result()
        except BaseException as error:  # noqa: BLE001 (whatever it was, the run decides what follows)
            outcome = error
        self._messages.put(_Ended(name, future, outcome))

    def _receive(self, news: _Message | _Ended) -> None:
        task = self._tasks.get(news.slide)
        if task is None:
            return
        if isinstance(news, _Ended):
            if news.future is task.future:
                del self._tasks[news.slide]
                self._conclude(task, news.outcome)
        elif isinstance(news.facts, str):
            if task.worker:
                self._events.append(Notice(f"{task.job.path.name}: worker {task.worker} was lost; resuming elsewhere"))
            self._begin(task, news.worker, news.facts)
        elif news.worker == task.worker:
            self._proven = task.advanced = True
            task.heard = time.monotonic()
            self._events.append((task.job, SlideProgress(Progress(*news.facts))))

    def _begin(self, task: _Task, worker: str, place: str) -> None:
        task.worker, task.heard = worker, time.monotonic()
        self._events.append((task.job, SlideStarted(place)))

    def _conclude(self, task: _Task, outcome: FromWorker | BaseException) -> None:
        if isinstance(outcome, WorkerRejected):
            if not self._proven:
                raise UsageError(outcome.message)
            self._events.append((task.job, WorkerLost(outcome.message)))
            return
        self._proven = True
        if not task.worker:  # a small slide's end may overtake its beginning
            self._begin(task, "cluster", "cluster")
        if isinstance(outcome, WorkerFailed):
            self._restart(task.worker)
            self._events.append((task.job, WorkerLost(outcome.reason, outcome.traceback)))
        elif isinstance(outcome, BaseException):
            self._events.append((task.job, WorkerLost(f"{type(outcome).__name__}: {outcome}")))
        else:
            self._events.append((task.job, outcome))  # type: ignore[arg-type]

    def _fail_stalled(self) -> None:
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        if gap > SUSPENDED:  # what the workers said meanwhile has not been read either
            for task in self._tasks.values():
                task.heard = min(now, task.heard + gap)
        for name, task in list(self._tasks.items()):
            if task.worker and now - task.heard > self._stall_timeout:
                del self._tasks[name]
                with suppress(Exception):
                    task.future.cancel()
                self._restart(task.worker)
                said = f"no progress for {now - task.heard:.0f} s; its worker was restarted"
                # One that never came to the slide hangs over something else, such as its model.
                event: SlideEvent = Failed(f"{task.job.path}: {said}") if task.advanced else WorkerLost(said)
                self._events.append((task.job, event))

    def _restart(self, worker: str) -> None:
        """Restart a worker's process, which is possible where it has a nanny."""
        self._in_background(lambda: self._client.restart_workers([worker], raise_for_error=False))

    def _in_background(self, call: Any) -> Thread:
        """Call something that may wait for a worker that does not answer."""

        def quietly() -> None:
            with suppress(Exception):
                call()

        thread = Thread(target=quietly, name="nuclix-dask", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Interrupt slides after their next committed row; those that have not started are withdrawn."""
        self._stopping = True
        self._in_background(lambda: self._client.run(ask_to_stop, self._run.name))
        for name, task in list(self._tasks.items()):
            if not task.worker:
                del self._tasks[name]
                with suppress(Exception):  # of a scheduler that is gone
                    task.future.cancel()
                self._events.append((task.job, Stopped()))

    def close(self) -> None:
        """Disconnect from the cluster; its slides are interrupted after their next committed row."""
        if self._tasks:
            self._in_background(lambda: self._client.run(ask_to_stop, self._run.name)).join(_EXIT_TIMEOUT)
        for task in self._tasks.values():
            with suppress(Exception):
                task.future.cancel()
        with suppress(Exception):
            self._client.close(timeout=_EXIT_TIMEOUT)


def _connected(address: str) -> Client:
    _check_address(address)
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs Dask: pip install distributed") from error

    def connect() -> Client:
        return Client(address, timeout=_CONNECT_TIMEOUT, set_as_default=False, name="nuclix")

    try:
        return _within(_CONNECT_TIMEOUT, connect)
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{address}: no Dask scheduler answers there ({said}); its port is usually 8786 (8787 is the dashboard's)"
        ) from error


def _check_address(address: str) -> None:
    """Raise `UsageError` unless an address names a host and a port."""
    try:
        found = urlsplit(address)
        complete = bool(found.scheme and found.hostname and found.port)
    except ValueError:
        complete = False
    if not complete:
        raise UsageError(f"{address}: not the address of a Dask scheduler; give one such as tcp://HOST:8786")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns; raise `TimeoutError` if it takes longer, as it does where something else listens."""
    outcome: ThreadFuture[T] = ThreadFuture()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 (handed on)
            outcome.set_exception(error)

    Thread(target=run, name="nuclix-dask-connect", daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error


def _dask_run(context: RunContext) -> DaskRun:
    """Return what workers elsewhere need: absolute paths, and what they compare with their own."""
    config = context.config
    model, out = find_model(config.model), config.output_folder.resolve()
    installed = config.model in registry.names(registry.WEIGHTS)
    absolute = replace(config, out=str(out), model=config.model if installed else str(model.resolve()))
    return DaskRun(
        context=replace(context, config=absolute),
        name=f"nuclix-{uuid.uuid4().hex}",
        model=model_hash(model),
        version=version("nuclix"),
        lock=Path(out / LOCK_NAME).read_text(),
    )
