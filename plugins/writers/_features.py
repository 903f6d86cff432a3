"""Text of the FeatureCollections that QuPath 0.4 to 0.7 imports: detections, locked annotations, provenance."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Annotation, ObjectClass, SlideHeader
from nuclix.engine.segmentation.objects import Objects
from nuclix.ext.geojson_text import FeatureStyle, feature_text

BETWEEN = b",\n"
TAIL = b"\n]}\n"
BLOCK = 20_000  # objects formatted at once: about 20 MB of text, however many are handed over


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _classification(kind: ObjectClass) -> dict[str, Any]:
    return {"name": kind.name, "color": [int(value) for value in kind.color]}


def _properties(kind: ObjectClass | None, object_type: str) -> str:
    """Return what the properties of a class' objects begin with, without braces."""
    members: dict[str, object] = {"objectType": object_type}
    if kind is not None:
        members["classification"] = _classification(kind)
    return _json(members)[1:-1]


class FeatureFormatter:
    """Turns a slide's objects into the text of features.

    Parameters
    ----------
    header : SlideHeader
        The slide.
    """

    def __init__(self, header: SlideHeader) -> None:
        self._header = header
        self._namespace = uuid.uuid5(uuid.NAMESPACE_URL, header.namespace)
        self._style: FeatureStyle | None = None

    @property
    def head(self) -> bytes:
        """How a collection begins, up to its first feature: the provenance is a member of the collection.

        A file's name may hold bytes that are no text; Python's escapes for them are JSON's too.
        """
        provenance = self._header.provenance
        member = f'"nuclix":{_json(dict(provenance))},' if provenance else ""
        return f'{{"type":"FeatureCollection",{member}"features":[\n'.encode("utf-8", "backslashreplace")

    def _style_of(self, objects: Objects) -> FeatureStyle:
        """Return the style of all features; every object of a file has the same measurements in the same order."""
        names = tuple(objects.measurements)
        if self._style is None:
            kind_of = "cell" if objects.are_cells else "detection"
            self._style = FeatureStyle(
                self._header.downsample,
                self._header.origin,
                self._namespace.bytes,
                tuple(_properties(kind, kind_of) for kind in self._header.classes or (None,)),
                names,
            )
        known = self._style.measurements
        if names != known:
            raise ValueError(f"every object of a file has the same measurements: {known}, not {names}")
        return self._style

    def features(self, objects: Objects, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the text of objects ``begin:end``, at most `BLOCK` features at a time, commas between features.

        Raises
        ------
        ValueError
            If the objects' columns don't fit each other, a value is not finite, or the measurements have other names
            than before.
        """
        style = self._style_of(objects)
        begin, end, _ = slice(begin, end).indices(len(objects))
        values = np.empty((len(objects), len(style.measurements)))
        for column, name in enumerate(style.measurements):
            values[:, column] = objects.measurements[name]
        for start in range(begin, end, BLOCK):
            yield feature_text(objects, values, style, start, min(start + BLOCK, end))

    def annotations(self) -> list[bytes]:
        """Return the slide's annotations as features: locked, so that a click on a nucleus does not move them."""
        return [self._annotation(number, item) for number, item in enumerate(self._header.annotations)]

    def _annotation(self, number: int, item: Annotation) -> bytes:
        polygons = [[_closed(ring) for ring in polygon] for polygon in item.polygons]
        one = len(polygons) == 1
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "name": item.name,
            "classification": _classification(item.kind),
            "isLocked": True,
        }
        if item.measurements:
            properties["measurements"] = {name: float(f"{value:.9g}") for name, value in item.measurements.items()}
        feature = {
            "type": "Feature",
            "id": str(uuid.uuid5(self._namespace, f"annotation {number}")),
            "geometry": {
                "type": "Polygon" if one else "MultiPolygon",
                "coordinates": polygons[0] if one else polygons,
            },
            "properties": properties,
        }
        return _json(feature).encode()


def _closed(ring: NDArray[np.float64]) -> list[list[float]]:
    """Return a ring's corners to two decimals, the first one repeated at the end."""
    return np.round(np.concatenate([ring, ring[:1]]), 2).tolist()
