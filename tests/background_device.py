"""A device that works in the background, without one: queues of closures, done late, in any allowed order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from nuclix.engine.inference.lanes import Lane


@dataclass(eq=False)
class Mark:
    """Reached once everything before it in its lane is done."""

    lane: Lane
    reached: bool = False


@dataclass
class BackgroundLanes:
    """Lanes whose work waits until someone needs it, or until chance has it done earlier.

    A slot that is filled again too early is then seen by work of the batch before, and results are wrong.
    """

    seed: int | None = None
    log: list[str] = field(default_factory=list)
    allocated: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queues: dict[Lane, deque[Callable[[], bool]]] = {lane: deque() for lane in Lane}
        self.chance = random.Random(self.seed)

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        self.allocated.append("host")
        return torch.full(shape, 77 if dtype != torch.bool else 0).to(dtype)

    def device(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        self.allocated.append("device")
        return torch.full(shape, 99).to(dtype)

    def run(self, lane: Lane, work: Callable[[], None]) -> None:
        def do() -> bool:
            self.log.append(lane.value)
            work()
            return True

        self.queues[lane].append(do)
        self._perhaps()

    def mark(self, lane: Lane) -> Mark:
        mark = Mark(lane)

        def reach() -> bool:
            mark.reached = True
            return True

        self.queues[lane].append(reach)
        return mark

    def wait(self, lane: Lane, mark: Mark) -> None:
        self.queues[lane].append(lambda: mark.reached)
        self._perhaps()

    def finish(self, mark: Mark) -> None:
        while not mark.reached:
            assert self._step(), "a lane waits for a mark that is never reached"

    def _perhaps(self) -> None:
        """Do some of the work in the background, as a real device would."""
        if self.seed is not None:
            while self.chance.random() < 0.5 and self._step():
                pass

    def _step(self) -> bool:
        """Do the next piece of work of a lane that is not waiting; return whether there was one."""
        lanes = list(Lane)
        if self.seed is not None:
            self.chance.shuffle(lanes)
        for lane in lanes:
            queue = self.queues[lane]
            try:
                done = bool(queue) and queue[0]()
            except RuntimeError:
                for other in self.queues.values():
                    other.clear()  # as an allocation that fails while work is queued: nothing behind it is queued
                raise
            if done:
                queue.popleft()
                return True
        return False
