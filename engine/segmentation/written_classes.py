"""From the model's classes, with which objects are stored, to those of a class map, with which they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nuclix.engine.contracts import ObjectClass
from nuclix.engine.parameters import as_mapping
from nuclix.engine.segmentation.classes import ClassMapping
from nuclix.engine.segmentation.record import SlideRecord
from nuclix.engine.slide.tissue_file import UM2_PER_MM2

_COUNTS, _DENSITIES = "nuclei_by_class", "nuclei_per_mm2_by_class"


def mapped_record(record: SlideRecord, model_classes: Sequence[ObjectClass], mapping: ClassMapping) -> SlideRecord:
    """Return a record of stored objects with the classes that are written.

    Parameters
    ----------
    record : SlideRecord
        As it is stored: its counts are those of the model's classes.
    model_classes : sequence of ObjectClass
        The model's classes.
    mapping : ClassMapping
        What becomes of them.
    """
    facts = {"classes": [as_mapping(item) for item in mapping.classes], "class_table": mapping.table.tolist()}
    return replace(
        record,
        model={**record.model, **facts},
        counts=_mapped_counts(record.counts, model_classes, mapping, _area_mm2(record)),
        regions=[_mapped_counts(item, model_classes, mapping, item.get("area_mm2")) for item in record.regions],
    )


def _mapped_counts(
    facts: Mapping[str, Any], model_classes: Sequence[ObjectClass], mapping: ClassMapping, area: float | None
) -> dict[str, Any]:
    """Return facts with counts by class summed over the model's classes that become one, and their densities."""
    before = facts.get(_COUNTS, {})
    after = {item.name: 0 for item in mapping.classes}
    for item, index in zip(model_classes, mapping.table, strict=True):
        after[mapping.classes[index].name] += before.get(item.name, 0)
    densities = {_DENSITIES: {name: count / area for name, count in after.items()}} if area else {}
    return {**facts, _COUNTS: after, **densities}


def _area_mm2(record: SlideRecord) -> float | None:
    """Return the tissue's area, or that of the slide where background was computed too."""
    sides: list[Any] = [record.slide.get(key) for key in ("height", "width", "mpp")]
    whole = None if None in sides else sides[0] * sides[1] * sides[2] ** 2 / UM2_PER_MM2
    area: float | None = record.counts.get("tissue_mm2", whole)
    return area


def mapping_of(record: Mapping[str, Any]) -> ClassMapping | None:
    """Return the mapping with which a slide's files were written last, or None where its record does not say."""
    model = record.get("model", {})
    if "class_table" not in model:
        return None
    classes = tuple(ObjectClass(str(item["name"]), tuple(item["color"])) for item in model["classes"])
    return ClassMapping(classes, np.array(model["class_table"], np.int32))
