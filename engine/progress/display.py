"""Show a run: bars on a terminal, plain lines elsewhere, JSON for programs, and ``run.log``."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from nuclix.engine.batch import events
from nuclix.engine.batch.layout import LOG_NAME
from nuclix.engine.errors import UsageError
from nuclix.engine.files import open_at_once
from nuclix.engine.progress.text import duration, grouped, one_line, shortened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from nuclix.engine.batch.events import RunEvent
    from nuclix.engine.progress.meter import RunSnapshot

# Where there is no terminal the state of the run is said this often, in seconds.
LINE_INTERVAL = 30.0
# The JSON log takes a slide's progress this often, in seconds.
JSON_INTERVAL = 10.0
# The bars are drawn this often, a second.
REFRESH = 4
_NAME_WIDTH = 32


def sentences(event: RunEvent) -> list[str]:
    """Return the lines that tell a user of an event; none for progress and beginnings.

    Parameters
    ----------
    event : RunEvent
        Any.
    """
    facts = event.facts
    if event.kind == events.RUN_STARTED and facts["skipped"]:
        return [f"{facts['skipped']} of {facts['total']} slides are already done"]
    if event.kind == events.SLIDE_DONE:
        seconds = facts["seconds"]
        speed = (facts["pixels"] - facts.get("pixels_resumed", 0)) / 1e6 / max(seconds, 1e-9)
        line = f"{event.slide}: {grouped(facts['nuclei'])} nuclei in {duration(seconds)} ({speed:.1f} Mpx/s)"
        return [line, *(f"{event.slide}: warning: {warning}" for warning in facts["warnings"])]
    if event.kind == events.SLIDE_FAILED:
        return [f"{event.slide}: failed: {facts['error']}"]
    if event.kind == events.NOTICE:
        return [str(facts["message"])]
    return []


def state_of(now: RunSnapshot) -> str:
    """Return the run in one line, such as ``3 of 12 slides, 41.2 Mpx/s, 5,210 nuclei/s, 2 h 31 min left``."""
    parts = [f"{now.skipped + now.done} of {now.total} slides"]
    if now.failed:
        parts.append(f"{now.failed} failed")
    if now.mpx_per_s:
        parts += [f"{now.mpx_per_s:.1f} Mpx/s", f"{grouped(now.nuclei_per_s)} nuclei/s"]
    if now.seconds_left is not None:
        parts.append(f"{duration(now.seconds_left)} left")
    return ", ".join(parts)


class PlainLines:
    """Writes lines, for logs of batch jobs; an event sink.

    Parameters
    ----------
    say : callable
        Writes a line.
    """

    name = "stderr"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = time.monotonic()

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Write it; progress only every `LINE_INTERVAL`."""
        for line in sentences(event):
            self._say(one_line(line))
        if event.kind == events.SLIDE_PROGRESS and time.monotonic() - self._last >= LINE_INTERVAL:
            self._last = time.monotonic()
            self._say(state_of(now))
            for slide in now.active:
                self._say(
                    f"  {one_line(slide.name)}: {slide.tiles}/{slide.tiles_total} tiles, "
                    f"{slide.mpx_per_s:.1f} Mpx/s, {grouped(slide.nuclei)} nuclei"
                )


class FailuresOnly:
    """Writes a line for each failure and nothing else; an event sink.

    Parameters
    ----------
    say : callable
        Writes a line.
    """

    name = "stderr"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Write it if it is a failure."""
        if event.kind == events.SLIDE_FAILED:
            for line in sentences(event):
                self._say(one_line(line))


class Bars:
    """Shows the run and each slide in progress on a terminal; an event sink, and a context that draws while it lasts.

    Parameters
    ----------
    console : Console
        Of the terminal.
    snapshot : callable
        Gives the run as it is now: the bars also move between events.
    """

    name = "terminal"

    def __init__(self, console: Console, snapshot: Callable[[], RunSnapshot]) -> None:
        from rich.live import Live

        self._console = console
        self._snapshot = snapshot
        self._begun = False
        self._live = Live(
            console=console,
            get_renderable=self._drawn,
            refresh_per_second=REFRESH,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):  # a terminal that is gone
            self._live.stop()

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Print above the bars what stays to be read."""
        self._begun = self._begun or event.kind == events.RUN_STARTED
        style = {events.SLIDE_FAILED: "red", events.NOTICE: "yellow"}.get(event.kind)
        for line in sentences(event):
            warning = f"{event.slide}: warning: " if event.kind == events.SLIDE_DONE else None
            shade = "yellow" if warning and line.startswith(warning) else style
            self._console.print(one_line(line), style=shade, highlight=False, markup=False, soft_wrap=True)

    def _drawn(self) -> RenderableType:
        return draw(self._snapshot(), self._console.width) if self._begun else "loading the model"


def draw(now: RunSnapshot, width: int) -> RenderableType:
    """Return the run and its slides in progress as bars.

    Parameters
    ----------
    now : RunSnapshot
        The run.
    width : int
        Of the terminal, in characters.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    name_width = max(8, min(_NAME_WIDTH, width // 3))
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=name_width, no_wrap=True)
    table.add_column(ratio=1, min_width=6)
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    over = now.skipped + now.done + now.failed
    inside = sum(slide.tiles / slide.tiles_total for slide in now.active if slide.tiles_total)
    left = "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
    failed = f", {now.failed} failed" if now.failed else ""
    table.add_row(
        Text(f"{over}/{now.total} slides{failed}", style="bold"),
        ProgressBar(total=max(1, now.total), completed=over + inside),
        f"{now.mpx_per_s:.1f} Mpx/s",
        f"{grouped(now.nuclei_per_s)} nuclei/s",
        Text(left, style="bold"),
        duration(now.seconds),
    )
    for slide in now.active:
        table.add_row(
            Text("  " + shortened(one_line(slide.name), name_width - 2)),
            ProgressBar(total=slide.tiles_total or None, completed=slide.tiles, pulse=not slide.tiles_total),
            f"{slide.mpx_per_s:.1f} Mpx/s",
            f"{grouped(slide.nuclei)} nuclei",
            f"{grouped(slide.tiles)}/{grouped(slide.tiles_total)} tiles" if slide.tiles_total else "opening",
            duration(slide.seconds),
        )
    return table


class JsonLines:
    """Writes one JSON object an event; an event sink.

    Parameters
    ----------
    target : str
        A file, to which is appended, or ``-`` for stderr.

    Raises
    ------
    UsageError
        When the first event comes, if the file can't be written.
    """

    def __init__(self, target: str) -> None:
        self.name = f"--json-log {target}"
        self._target = target
        self._file: TextIO | None = sys.stderr if target == "-" else None
        self._last: dict[str, float] = {}

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Write it; of a slide's progress one every `JSON_INTERVAL`."""
        if event.kind == events.SLIDE_PROGRESS:
            last = self._last.get(event.slide)
            if last is not None and event.time - last < JSON_INTERVAL:
                return
            self._last[event.slide] = event.time
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.time))
        content: dict[str, Any] = {"time": f"{stamp}.{int(event.time % 1 * 1000):03d}Z", "event": event.kind}
        if event.slide:
            content["slide"] = event.slide
        run = {
            "done": now.skipped + now.done,
            "failed": now.failed,
            "total": now.total,
            "mpx_per_s": round(now.mpx_per_s, 3),
            "nuclei_per_s": round(now.nuclei_per_s, 1),
            "seconds_left": None if now.seconds_left is None else round(now.seconds_left, 1),
        }
        stream = self._opened()
        stream.write(json.dumps({**content, **event.facts, "run": run}) + "\n")
        stream.flush()

    def _opened(self) -> TextIO:
        if self._file is None:
            try:
                self._file = open(self._target, "a", encoding="utf-8", opener=open_at_once)  # noqa: SIM115 (see close)
            except OSError as error:
                raise UsageError(f"--json-log {self._target}: can't be written: {error.strerror}") from error
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._target != "-":
            with suppress(OSError):
                self._file.close()


class LogLines:
    """Copies messages for the user to the log; an event sink."""

    name = LOG_NAME

    def take(self, event: RunEvent, now: RunSnapshot) -> None:
        """Log it, but for failures and notices: the batch logs those itself, with tracebacks."""
        if event.kind not in (events.SLIDE_FAILED, events.NOTICE):
            for line in sentences(event):
                logging.getLogger("nuclix").info("%s", line)
        if event.kind == events.RUN_ENDED:
            logging.getLogger("nuclix").info("run ended (%s): %s", event.facts["stopped"] or "completed", state_of(now))


class RunLog(AbstractContextManager["RunLog"]):
    """Keeps ``run.log`` in the output folder while a run lasts; the file is begun with the first entry.

    Parameters
    ----------
    out : Path
        The output folder.
    """

    def __init__(self, out: Path) -> None:
        self._handler = _QuietHandler(out / LOG_NAME, encoding="utf-8", errors="backslashreplace", delay=True)
        self._handler.setFormatter(_Indented("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> Self:
        logger = logging.getLogger("nuclix")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logger = logging.getLogger("nuclix")
        if error is not None and not isinstance(error, UsageError):
            logger.error("the run failed", exc_info=error)
        logger.removeHandler(self._handler)
        self._handler.close()


class _QuietHandler(logging.FileHandler):
    """Ignores a full disk or a folder that is gone: what fails because of it reports it."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # of opening, which logging does not catch
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Indented(logging.Formatter):
    """Indents what follows an entry's first line, so that no message (a file's name) can look like an entry."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip().replace("\r", "\\r").replace("\n", "\n    ")
