"""GeoJSON text of finished outlines compared with geojson.dumps and json.dumps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maps import predicted
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import objects_of
from nuclix.ext.geojson_text import FeatureStyle, feature_text
from peers import SIZES, race

FLOOR = np.float32(0.5)
PIXEL = 0.501  # the worst case: coordinates with two decimals


def finished(labels):
    """Return a block's objects far out on a slide, their values, and the style of a file."""
    objects = objects_of(labels, np.full(labels.shape, 0.7, np.float32), Box(31_000, 42_000, *labels.shape), 0.25)
    kind = '"objectType":"detection","classification":{"name":"Nucleus","color":[200,0,0]}'
    style = FeatureStyle(PIXEL, (12.5, 3.25), bytes(16), (kind,), tuple(objects.measurements))
    return objects, np.stack(list(objects.measurements.values()), axis=1), style


def by_nuclix(labels):
    objects, values, style = finished(labels)
    return lambda: feature_text(objects, values, style)


def by_geojson(labels):
    import geojson

    features = geojson.loads(b'{"type":"FeatureCollection","features":[' + by_nuclix(labels)() + b"]}")
    return lambda: geojson.dumps(features, ensure_ascii=False).encode()


def by_json(labels):
    features = json.loads(b"[" + by_nuclix(labels)() + b"]")
    return lambda: json.dumps(features, ensure_ascii=False, separators=(",", ":")).encode()


CONTENDERS = {"nuclix": by_nuclix, "geojson": by_geojson, "json": by_json}


@pytest.mark.parametrize("who", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
def test_feature_text(benchmark, size, who):
    distance, labels = predicted(size)
    found = race(benchmark, "feature_text", who, CONTENDERS, labels * (distance > FLOOR))
    benchmark.extra_info["bytes"] = len(found)
    assert found.count(b'"Polygon"') + found.count(b'"MultiPolygon"') == len(np.unique(labels * (distance > FLOOR))) - 1
