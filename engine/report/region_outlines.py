"""Regions of a run on the page of a slide: outlines for the picture of the slide, and a line for the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nuclix.engine.contracts import Annotation
from nuclix.engine.report.field_pictures import css_color
from nuclix.engine.segmentation.regions import region_annotations

MAX_CORNERS = 400  # of a ring: the picture has a thousand pixels along its longer side


def region_outlines(stored: bytes, facts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the page shows of each region.

    Parameters
    ----------
    stored : bytes
        The regions of the stored objects; empty where the run was not limited to regions.
    facts : sequence of mapping
        What the record states of each.

    Returns
    -------
    list of dict
        Number, colour, outline (an SVG path in level-0 pixels from the corner of what QuPath shows), and the facts.
    """
    if not stored:
        return []
    found = zip(region_annotations(stored, facts), facts, strict=True)
    return [
        {"number": number, "color": css_color(region.kind.color), "path": _path(region), **counted}
        for number, (region, counted) in enumerate(found, 1)
    ]


def _path(region: Annotation) -> str:
    """Return the rings of a region as a path."""
    parts = []
    for polygon in region.polygons:
        for ring in polygon:
            corners = ring[:: -(-len(ring) // MAX_CORNERS)]
            parts.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in corners) + "Z")
    return "".join(parts)
