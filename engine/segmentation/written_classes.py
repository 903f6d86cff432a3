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

_COUNTS = "nuclei_by_class"


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
        counts=_mapped_counts(record.counts, model_classes, mapping),
        regions=[_mapped_counts(region, model_classes, mapping) for region in record.regions],
    )


def _mapped_counts(
    facts: Mapping[str, Any], model_classes: Sequence[ObjectClass], mapping: ClassMapping
) -> dict[str, Any]:
    """Return facts with their counts by class summed over the model's classes that become one."""
    before = facts.get(_COUNTS, {})
    after = {item.name: 0 for item in mapping.classes}
    for item, index in zip(model_classes, mapping.table, strict=True):
        after[mapping.classes[index].name] += before.get(item.name, 0)
    return {**facts, _COUNTS: after}


def mapping_of(record: Mapping[str, Any]) -> ClassMapping | None:
    """Return the mapping with which a slide's files were written last, or None where its record does not say."""
    model = record.get("model", {})
    if "class_table" not in model:
        return None
    classes = tuple(ObjectClass(str(item["name"]), tuple(item["color"])) for item in model["classes"])
    return ClassMapping(classes, np.array(model["class_table"], np.int32))
