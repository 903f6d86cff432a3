"""Shape measurements of outlines compared with shapely's and scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest

from maps import predicted
from nuclix.ext.outlines import label_outlines
from nuclix.ext.shapes import shape_measurements
from peers import SIZES, race
from rings import polygons_of

FLOOR = np.float32(0.5)
PROPERTIES = ("area", "perimeter", "area_convex", "feret_diameter_max", "axis_minor_length")


def by_nuclix(labels):
    outlines = label_outlines(labels)
    return lambda: shape_measurements(outlines).hull_area


def by_shapely(labels):
    """The same quantities but the least width, for which shapely has no function of arrays."""
    import shapely

    shapes = np.array([shapely.MultiPolygon(polygons) for polygons in polygons_of(label_outlines(labels))])

    def measure():
        shapely.area(shapes)
        shapely.length(shapes)
        shapely.minimum_bounding_radius(shapes)
        return shapely.area(shapely.convex_hull(shapes))

    return measure


def by_skimage(labels):
    """The nearest that it has, from pixels."""
    from skimage.measure import regionprops_table

    return lambda: regionprops_table(labels, properties=PROPERTIES)["area_convex"]


CONTENDERS = {"nuclix": by_nuclix, "shapely": by_shapely, "scikit-image": by_skimage}


@pytest.mark.parametrize("who", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
def test_shape_measurements(benchmark, size, who):
    distance, labels = predicted(size)
    labels = labels * (distance > FLOOR)
    found = race(benchmark, "shape_measurements", who, CONTENDERS, labels)
    benchmark.extra_info["nuclei"] = len(found)
    if who == "shapely":
        np.testing.assert_allclose(found, shape_measurements(label_outlines(labels)).hull_area, rtol=1e-9)
