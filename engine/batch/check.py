"""Forecast a run: what would be computed, skipped or refused, without the network and without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.isolated import SlideInspector
from nuclix.engine.batch.layout import LEDGER_NAME
from nuclix.engine.batch.ledger import Ledger, LedgerRow, known_slides
from nuclix.engine.batch.resume import CheckHooks, ResultChecker, SlideCheck, stale_reasons
from nuclix.engine.batch.slide_table import list_slides
from nuclix.engine.contracts import ModelCard
from nuclix.engine.errors import ModelError, NuclixError, UsageError
from nuclix.engine.inference.model_file import find_model, model_hash, read_card
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.regions import regions_of
from nuclix.engine.slide.scale import check_upsampling, configured_scale, resolve_scale

COMPUTE, RESUME, DONE, STALE, REFUSED = "compute", "resume", "done", "recompute", "refused"
# Slides opened concurrently: most of the time is spent waiting for a network share.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class SlideForecast:
    """What a run would do with a slide.

    Attributes
    ----------
    path, name : str
        The slide, and the name of its results.
    action : str
        compute, resume (after an interrupted run), done, recompute (if the user agrees) or refused.
    reason : str
        Why it is refused or would be recomputed; what else the user should know.
    reader : str
        The class that reads it.
    width, height : int
        In pixels of the full resolution; 0 where the slide can't be opened.
    mpp : float or None
        um/px of the full resolution that would be used.
    mpp_source : str
        Where it comes from.
    tiles : int
        At most so many network patches; fewer where background is skipped.
    seconds : float or None
        Expected time at most, from the slides that were computed in this output folder; None without any.
    """

    path: str
    name: str
    action: str
    reason: str = ""
    reader: str = ""
    width: int = 0
    height: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    tiles: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunForecast:
    """What a run would do.

    Attributes
    ----------
    slides : tuple of SlideForecast
        In the order of the inputs.
    passed_over : tuple of str
        One line for each reason.
    """

    slides: tuple[SlideForecast, ...]
    passed_over: tuple[str, ...]


def forecast(config: RunConfig) -> RunForecast:
    """Look at every slide of a run.

    Parameters
    ----------
    config : RunConfig
        With slides and output folder, which need not exist.

    Returns
    -------
    RunForecast

    Raises
    ------
    UsageError
        If nothing could be run: an input that matches nothing, or an unknown model.
    OutputError
        If the ledger of the output folder can't be read.
    """
    out = config.output_folder
    found = list_slides(config, known_slides(out))
    try:
        path = find_model(config.model)
        card, digest = read_card(path), model_hash(path)
    except ModelError as error:
        raise UsageError(str(error)) from error
    rows = _rows(out)
    checker = ResultChecker(config, digest, rows, CheckHooks())
    rate = _pixels_per_second(list(rows.values()))
    with SlideInspector() as inspector, ThreadPoolExecutor(_THREADS, "nuclix-check") as pool:
        look = partial(_forecast, _Forecaster(config, card, checker, rate, inspector))
        return RunForecast(tuple(pool.map(look, found.jobs)), found.passed_over)


def _rows(out: Path) -> dict[str, LedgerRow]:
    if not (out / LEDGER_NAME).is_file():
        return {}
    ledger = Ledger(out, read_only=True)
    try:
        return {row.name: row for row in ledger.rows()}
    finally:
        ledger.close()


def _pixels_per_second(rows: Sequence[LedgerRow]) -> float | None:
    """Return the throughput of the slides that are done, in pixels at the model's scale."""
    counts = [(row.record.get("counts", {}), row.record.get("seconds", {})) for row in rows if row.record]
    pixels = sum(count.get("pixels", 0) - count.get("pixels_resumed", 0) for count, _ in counts)
    seconds = sum(time.get("wall", 0.0) for _, time in counts)
    return pixels / seconds if pixels > 0 and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class _Forecaster:
    """What the forecast of every slide needs."""

    config: RunConfig
    card: ModelCard
    checker: ResultChecker
    rate: float | None
    inspector: SlideInspector


def _forecast(of: _Forecaster, job: SlideJob) -> SlideForecast:
    config, card, checker, rate = of.config, of.card, of.checker, of.rate
    names = (str(job.path), str(job.name))
    check = checker.check(job)
    if check.error:
        return SlideForecast(*names, REFUSED, check.error)
    action, reason = _action(check, config)
    if check.done and (row := checker.rows.get(str(job.name))) is not None and row.record.get("slide"):
        return _recorded(row, reason)
    try:
        found = of.inspector.inspect(job.path, config.reader)
    except NuclixError as error:
        return SlideForecast(*names, action if check.done else REFUSED, str(error))
    info, kind = found.info, found.reader
    size = info.levels[0]
    try:
        scale = resolve_scale(info, job.scale if job.scale.source else configured_scale(config))
        check_upsampling(info, scale.scale, card.scale, config)
        regions_of(config, job.path)
    except NuclixError as error:
        said = str(error).removeprefix(f"{job.path}: ")
        return SlideForecast(*names, action if check.done else REFUSED, said, kind, size.width, size.height)
    zoom = scale.scale.mpp / card.scale.mpp
    valid = card.patch.valid
    tiles = -(-round(size.height * zoom) // valid) * -(-round(size.width * zoom) // valid)
    seconds = size.height * size.width * zoom**2 / rate if rate is not None and not check.done else None
    reason = "; ".join(filter(None, (reason, *scale.warnings)))
    return SlideForecast(
        *names, action, reason, kind, size.width, size.height, scale.scale.mpp, scale.source, tiles, seconds
    )


def _recorded(row: LedgerRow, reason: str) -> SlideForecast:
    """Return the forecast of a finished slide from its record; opening a thousand of them takes a minute."""
    slide, counts = row.record["slide"], row.record.get("counts", {})
    return SlideForecast(
        row.path,
        row.name,
        DONE,
        reason,
        slide.get("reader") or "",
        slide.get("width", 0),
        slide.get("height", 0),
        slide.get("mpp"),
        slide.get("mpp_source") or "",
        counts.get("tiles_total", 0),
    )


def _action(check: SlideCheck, config: RunConfig) -> tuple[str, str]:
    if check.done:
        return DONE, check.notice
    if check.changed:
        kept = config.recompute is False
        return (DONE if kept else STALE), f"made with another {stale_reasons([check])}{'; kept' if kept else ''}"
    return (RESUME if check.interrupted else COMPUTE), check.notice
