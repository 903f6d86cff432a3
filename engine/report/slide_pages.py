"""The pages of all finished slides of an output folder, within a time budget, whatever is wrong with one of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nuclix.engine.batch.layout import slide_page_path
from nuclix.engine.batch.ledger import DONE
from nuclix.engine.errors import NuclixError
from nuclix.engine.report.collect import FolderFacts
from nuclix.engine.report.slide_page import PageRequest, is_current, write_slide_page

log = logging.getLogger("nuclix")


# Time for pages at the end of a run: at least so many seconds, and so much of the run's own time.
MIN_SECONDS, SHARE_OF_RUN = 60.0, 0.05


@dataclass(slots=True)
class PagesSummary:
    """What became of the pages.

    Attributes
    ----------
    made, current : int
        Pages made, and those that were up to date.
    failed : dict of str to str
        Why a page could not be made, or shows no tissue, by slide.
    left : int
        Slides that the time did not suffice for.
    """

    made: int = 0
    current: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0


def write_slide_pages(
    folder: FolderFacts,
    report: Path,
    *,
    seconds: float | None = None,
    slides: Path | None = None,
    on_page: Callable[[str], None] = lambda name: None,
) -> PagesSummary:
    """Make the page of every finished slide, unless it is there already.

    Parameters
    ----------
    folder : FolderFacts
        The output folder.
    report : Path
        The report; the pages go to a folder next to it.
    seconds : float or None
        After this time no further page is begun; None for no limit.
    slides : Path or None
        A folder in which the slides lie now.
    on_page : callable
        Called with the name of each slide whose page was made.

    Returns
    -------
    PagesSummary
    """
    summary = PagesSummary()
    begun = time.monotonic()
    for slide in folder.slides:
        if slide.state != DONE:
            continue
        request = PageRequest(folder.out, slide, report, slide_page_path(report, slide.name), slides)
        if is_current(request):
            summary.current += 1
            continue
        if seconds is not None and time.monotonic() - begun > seconds:
            summary.left += 1
            continue
        problem = _make(request)
        if problem:
            summary.failed[slide.name] = problem
        else:
            summary.made += 1
            on_page(slide.name)
    return summary


def pages_of_run(folder: FolderFacts, report: Path) -> str:
    """Make the pages at the end of a run, which they must not hold up.

    Parameters
    ----------
    folder : FolderFacts
        The output folder.
    report : Path
        The report.

    Returns
    -------
    str
        What to tell the user; empty where all pages are there.
    """
    run = folder.last
    spent = run.updated - run.started if run is not None else 0.0
    summary = write_slide_pages(folder, report, seconds=max(MIN_SECONDS, SHARE_OF_RUN * spent))
    said = [f"{name}: {problem}" for name, problem in summary.failed.items()]
    for line in said:
        log.warning("page of the report: %s", line)
    if summary.left:
        said.append(f"{summary.left} slides have no page yet; `nuclix report {folder.out}` makes them")
    return "; ".join(said[-1:] if len(said) > 1 else said)


def _make(request: PageRequest) -> str:
    """Make one page; return why it could not be made, or not with the tissue."""
    try:
        return write_slide_page(request)
    except (NuclixError, OSError) as error:
        return str(error)
    except Exception as error:
        log.warning("%s: the slide's page can't be made", request.slide.name, exc_info=True)
        return f"{type(error).__name__}: {error}"
