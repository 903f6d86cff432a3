"""The page's record: which runs there were, and what the results were made with."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from nuclix.engine.batch.ledger import DONE
from nuclix.engine.progress.status import RunFile
from nuclix.engine.progress.text import moment
from nuclix.engine.report.collect import FolderFacts, SlideFacts
from nuclix.engine.report.markup import badge, escape, pairs, table


def record_section(folder: FolderFacts) -> str:
    """Return the runs that an output folder has seen, what its results were made with, settings and versions."""
    parts = ["<h3>Runs</h3>", table(("Begun", "Ended", "Host", "Process", "Slides done", "Failed", "How it ended"),
             [_run_row(run, folder) for run in folder.runs])] if folder.runs else []  # fmt: skip
    groups: dict[str, list[SlideFacts]] = defaultdict(list)
    for slide in folder.slides:
        if slide.state == DONE:
            groups[json.dumps([slide.made_with, slide.model], sort_keys=True)].append(slide)
    for number, slides in enumerate(groups.values(), start=1):
        plural = "slide" if len(slides) == 1 else "slides"
        title = "Results" if len(groups) == 1 else f"Results, configuration {number}"
        parts += [f"<h3>{title} <small>{len(slides)} {plural}</small></h3>", pairs(_made_with(slides[0]))]
    if folder.last is not None:
        versions = [(name, value) for name, value in folder.last.versions.items()]
        parts += ['<div class="columns"><div><h3>Settings of the last run</h3>', pairs(_settings(folder.last)),
                  "</div><div><h3>Versions</h3>", pairs(versions), "</div></div>"]  # fmt: skip
    return "".join(parts)


def _run_row(run: RunFile, folder: FolderFacts) -> tuple[str, ...]:
    if run.ended is not None:
        how = escape(run.stopped) if run.stopped else "by itself"
    else:
        how = badge("running") if run is folder.last and folder.live else "killed, or its machine went down"
    end = run.ended if run.ended is not None else run.updated
    return (
        moment(run.started),
        moment(end),
        escape(run.host),
        str(run.pid),
        str(run.progress.done),
        str(run.progress.failed),
        how,
    )


def _made_with(slide: SlideFacts) -> list[tuple[str, object]]:
    facts = {"model": slide.model.get("name", ""), "model SHA-256": slide.made_with.get("model", "")}
    post = slide.model.get("parameters", {})
    facts["post-processor"] = f"{slide.model.get('postprocessor', '')} {_inline(post)}"
    rest = {name: value for name, value in slide.made_with.items() if name != "model"}
    return [(name, _inline(value)) for name, value in {**facts, **rest}.items()]


def _settings(run: RunFile) -> list[tuple[str, object]]:
    return [(name, _inline(value)) for name, value in run.config.items()]


def _inline(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_inline(item)}" for name, item in value.items())
    return ", ".join(map(_inline, value)) if isinstance(value, list | tuple) else str(value)
