"""The page's table of slides, and a card with a picture for each."""

from __future__ import annotations

from dataclasses import dataclass

from nuclix.engine.progress.text import duration, grouped, significant
from nuclix.engine.report.charts import sparkline
from nuclix.engine.report.collect import SlideFacts
from nuclix.engine.report.markup import badge, escape
from nuclix.engine.report.pictures import density_uri
from nuclix.engine.segmentation.summary import SlideSummary, area_quantiles

_NONE = '<span class="none">&ndash;</span>'


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """A slide on the page.

    Attributes
    ----------
    facts : SlideFacts
        What the folder tells of it.
    sketch : SlideSummary or None
        Its nuclei.
    picture : (str, (int, int)) or None
        Its thumbnail's data URI and its width and height.
    anchor : str
        Where its card stands.
    """

    facts: SlideFacts
    sketch: SlideSummary | None
    picture: tuple[str, tuple[int, int]] | None
    anchor: str

    @property
    def median_um2(self) -> float | None:
        """Median nuclear area."""
        found = area_quantiles(self.sketch.areas, (0.5,)) if self.sketch is not None else None
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Shared:
    """What the cards have in common: ends of the density scale (per mm2) and of the area axis (um2)."""

    density_top: float
    area_end: float


def slide_table(entries: tuple[SlideEntry, ...]) -> str:
    """Return the table, a row a slide; its script sorts by the cells' ``data-v``."""
    names = (
        ("Slide", ""),
        ("State", ""),
        ("Size, mm", "num"),
        ("Tissue, mm²", "num"),
        ("Nuclei", "num"),
        ("Nuclei/mm²", "num"),
        ("Median area, µm²", "num"),
        ("Time", "num"),
        ("s/mm²", "num"),
        ("Notes", ""),
    )
    head = "".join(
        f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{name}</button></th>'
        for name, kind in names
    )
    rows = "".join(map(_row, entries))
    return (
        '<div class="scroll"><table class="slides" id="slide-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(entry: SlideEntry) -> str:
    facts = entry.facts
    size = facts.size_mm
    wall = facts.seconds.get("wall")
    pixels = f"{facts.width} &times; {facts.height} px" if facts.width is not None else ""
    cells = [
        f'<th scope="row" data-v="{escape(facts.name)}"><a href="#{entry.anchor}" title="{escape(facts.path)}">'
        f"{escape(facts.name)}</a></th>",
        f'<td data-v="{escape(facts.state)}">{badge(facts.state)}</td>',
        _number(
            None if size is None else size[0] * size[1],
            "" if size is None else f'<span title="{pixels}">{size[1]:.1f} &times; {size[0]:.1f}</span>',
        ),
        _number(facts.tissue_mm2, "" if facts.tissue_mm2 is None else significant(facts.tissue_mm2)),
        _number(facts.nuclei, "" if facts.nuclei is None else grouped(facts.nuclei)),
        _number(facts.density, "" if facts.density is None else grouped(facts.density)),
        _number(entry.median_um2, "" if entry.median_um2 is None else significant(entry.median_um2)),
        _number(wall, "" if wall is None else duration(wall)),
        _number(facts.seconds_per_mm2, "" if facts.seconds_per_mm2 is None else significant(facts.seconds_per_mm2)),
        f'<td class="notes" data-v="{len(facts.warnings) + 2 * bool(facts.error)}">{_notes(facts)}</td>',
    ]
    return f'<tr data-state="{escape(facts.state)}">{"".join(cells)}</tr>'


def _number(value: float | None, shown: str) -> str:
    return f'<td class="num" data-v="{"" if value is None else repr(float(value))}">{shown or _NONE}</td>'


def _notes(facts: SlideFacts) -> str:
    notes = [f'<div class="bad">{escape(facts.reason)}</div>'] if facts.error else []
    notes += [f'<div class="warn">{escape(warning)}</div>' for warning in facts.warnings]
    if facts.attempts > 1:
        notes.append(f'<div class="quiet">{facts.attempts} attempts</div>')
    return "".join(notes)


def slide_card(entry: SlideEntry, shared: Shared) -> str:
    """Return a slide's picture with its density map and its figures."""
    facts = entry.facts
    rows = [
        ("nuclei", "" if facts.nuclei is None else grouped(facts.nuclei)),
        ("per mm²", "" if facts.density is None else grouped(facts.density)),
        ("median area", "" if entry.median_um2 is None else f"{significant(entry.median_um2)} µm²"),
    ]
    figures = "".join(f"<span><b>{value}</b> {name}</span>" for name, value in rows if value)
    spark = ""
    if entry.sketch is not None and entry.median_um2 is not None and facts.nuclei:
        spark = sparkline(entry.sketch.areas, shared.area_end)
    return (
        f'<figure class="card" id="{entry.anchor}" data-state="{escape(facts.state)}">{_picture(entry, shared)}'
        f'<figcaption><div class="title" title="{escape(facts.path)}">{escape(facts.name)}</div>'
        f'<div class="figures">{figures or badge(facts.state)}</div>{spark}</figcaption></figure>'
    )


def _picture(entry: SlideEntry, shared: Shared) -> str:
    if entry.picture is None:
        return f'<div class="picture empty"><p>{escape(entry.facts.reason or "no picture")}</p></div>'
    uri, (width, height) = entry.picture
    over = ""
    if entry.sketch is not None and entry.facts.nuclei:
        over = f'<img class="density" src="{density_uri(entry.sketch, shared.density_top)}" alt="" loading="lazy">'
    failed = f'<p class="over">{escape(entry.facts.reason)}</p>' if entry.facts.error else ""
    return (
        f'<div class="picture"><div class="stack" style="aspect-ratio:{width}/{height};--ratio:{width / height:.4f}">'
        f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(entry.facts.name)}" loading="lazy">{over}'
        f"</div>{failed}</div>"
    )
