"""The runs of an output folder, kept where another shell can see them: one small file a run, replaced as it goes.

Nothing depends on these files: they are not flushed to the disk, and a run goes on where they can't be written.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuclix.engine.batch.events import RUN_ENDED, RUN_STARTED, SLIDE_PROGRESS, RunEvent
from nuclix.engine.batch.layout import runs_folder
from nuclix.engine.batch.lock import lock_holder
from nuclix.engine.errors import DataError
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.progress.meter import RunSnapshot
from nuclix.engine.segmentation.record import versions

log = logging.getLogger("nuclix")

# Progress is written this often, in seconds; other events at once.
INTERVAL = 2.0
# A run on another host that has said nothing for this long has most likely died.
SILENCE = 900.0


@dataclass(frozen=True, slots=True)
class RunFile:
    """What is kept of a run.

    Attributes
    ----------
    host, pid : str, int
        Where it runs.
    started, updated : float
        Seconds since 1970: when the slides were known, and when this was written.
    ended : float or None
        None while it runs, and where it was killed.
    stopped : str
        Why it ended before all slides were tried.
    config, versions : mapping
        The effective configuration, and what computed.
    progress : RunSnapshot
        As it stood at `updated`.
    passed_over : tuple of str
        Files that are no slides of the run, one line for each reason.
    """

    host: str
    pid: int
    started: float
    updated: float
    ended: float | None = None
    stopped: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    progress: RunSnapshot = field(default_factory=RunSnapshot)
    passed_over: tuple[str, ...] = ()


class StatusFile:
    """Keeps a run's file up to date; an event sink.

    Parameters
    ----------
    out : Path
        The output folder.
    config : mapping
        The effective configuration, in plain JSON values.
    """

    name = "status file"

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self._folder = runs_folder(out)
        self._config = config
        self._versions: Mapping[str, str] = {}
        self._started: float | None = None
        self._written = 0.0
        self._silent = False
        self._passed_over: list[str] = []

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Write the file, unless it was written a moment ago."""
        if event.kind == RUN_STARTED:
            self._started, self._versions = event.time, versions()
        if event.facts.get("passed_over"):
            self._passed_over.append(str(event.facts["message"]))
        due = event.kind != SLIDE_PROGRESS or time.monotonic() - self._written >= INTERVAL
        if self._started is None or not due:
            return
        self._written = time.monotonic()
        ended = event.kind == RUN_ENDED
        content = RunFile(
            socket.gethostname(),
            os.getpid(),
            self._started,
            event.time,
            event.time if ended else None,
            event.facts["stopped"] if ended else "",
            self._config,
            self._versions,
            now,
            tuple(self._passed_over),
        )
        self._write(json.dumps(as_mapping(content)))

    def _write(self, text: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._started))
        path = self._folder / f"{stamp}-{socket.gethostname()}-{os.getpid()}.json"
        temporary = path.with_suffix(".tmp")
        try:
            # One by one: an output folder that has vanished is not created again.
            self._folder.parent.mkdir(exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            if not self._silent:
                log.warning("the status can't be written: %s", error)
            self._silent = True


def read_runs(out: Path) -> tuple[RunFile, ...]:
    """Return the runs that an output folder has seen, the oldest first; files that can't be read are left out.

    Parameters
    ----------
    out : Path
        The output folder; it is only looked at.
    """
    found = []
    for path in sorted((runs_folder(out)).glob("*.json")):
        try:
            found.append(from_mapping(RunFile, json.loads(path.read_text(encoding="utf-8")), str(path), DataError))
        except (OSError, ValueError, DataError) as error:
            log.debug("%s is left out: %s", path, error)
    return tuple(sorted(found, key=lambda run: run.started))


def is_live(out: Path, run: RunFile, now: float) -> bool:
    """Return whether a run is still running, as far as can be seen from here.

    Parameters
    ----------
    out : Path
        The output folder.
    run : RunFile
        Its latest run.
    now : float
        Seconds since 1970.
    """
    holder = lock_holder(out)
    if run.ended is not None or holder is None or (holder.host, holder.pid) != (run.host, run.pid):
        return False
    return holder.alive if holder.alive is not None else now - run.updated < SILENCE
