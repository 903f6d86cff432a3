"""The process of a worker. It is started before its work is known: what computes takes longest to import."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from nuclix.engine.operating_system import ignore_stop_signals, stop_signals_wait

if TYPE_CHECKING:
    from nuclix.engine.batch.executor import RunContext
    from nuclix.engine.run_config import RunConfig

# A process of its own interpreter: threads and CUDA of this one do not survive a fork. Tests set "forkserver", which
# loads PyTorch once for all of their workers.
_START_METHOD = "spawn"
# A process that has been killed is waited for this long, in seconds: one that hangs in a system call (a share that
# does not answer) can't be killed and is left behind.
EXIT_TIMEOUT = 5.0
Work = Callable[[Connection, "RunContext", int], None]


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A process that imports what a worker needs and waits for its work."""

    process: BaseProcess
    connection: Connection

    def begin(self, context: RunContext, cpu_workers: int) -> None:
        """Say which run it works for; a process that has died meanwhile is found dead when it is listened to."""
        with suppress(OSError):
            self.connection.send((context, cpu_workers))

    def close(self) -> None:
        """End the process at once, if it is still there."""
        self.process.kill()
        self.process.join(EXIT_TIMEOUT)
        self.connection.close()


def start_worker(config: RunConfig) -> WorkerProcess:
    """Start the process of a worker, which imports what these options need."""
    starter = multiprocessing.get_context(_START_METHOD)
    # A helper of multiprocessing's, which is started with the first process and lets the signals through again.
    resource_tracker.ensure_running()
    ours, theirs = starter.Pipe()
    needs = (config.model, config.runtime, config.device, config.precision)
    process = starter.Process(target=_serve, args=(theirs, run_worker, needs), daemon=True)  # type: ignore[attr-defined]
    # Until the child has its own way with these signals they wait; an impatient Ctrl-C finds no half-made process.
    with stop_signals_wait(), hidden_main():
        process.start()
    theirs.close()
    return WorkerProcess(process, ours)


@contextmanager
def hidden_main() -> Iterator[None]:
    """Start processes that do not import the caller's script, which needs no ``if __name__ == "__main__"`` then."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(kept)


def run_worker(connection: Connection, context: RunContext, cpu_workers: int) -> None:
    """Import the worker where it works, and run it; see `nuclix.engine.batch.worker.run_worker`."""
    from nuclix.engine.batch import worker

    worker.run_worker(connection, context, cpu_workers)


def _serve(connection: Connection, work: Work, needs: tuple[str, str, str, str]) -> None:
    """Import what takes long, then work; a parent that has gone meanwhile ends the process."""
    # Signals reach every process of a terminal or of a job; what they mean is the parent's to say. It has them
    # blocked around the start of this process.
    ignore_stop_signals()
    with suppress(Exception):  # an installation that is broken says so to the run's log, once there is one
        from nuclix.engine.inference.runtime import preload

        preload(*needs)
        import nuclix.engine.batch.worker  # noqa: F401
    try:
        context, cpu_workers = connection.recv()
    except (EOFError, OSError):
        return
    work(connection, context, cpu_workers)


def exit_reason(code: int | None) -> str:
    """Return how a process ended, for a message."""
    if code is None:
        return "does not answer"
    if code < 0:
        hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}{hint}"
    return f"exit code {code}"
