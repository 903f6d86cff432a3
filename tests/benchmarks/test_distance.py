"""Chessboard distances of masks and inside instances."""

from __future__ import annotations

import numpy as np
import pytest

from maps import predicted, touching
from nuclix.ext.distance import chessboard_distance, instance_distance
from peers import SIZES, opencv, race


def by_scipy(mask):
    from scipy.ndimage import distance_transform_cdt

    return lambda: distance_transform_cdt(mask, "chessboard")


def by_opencv(mask):
    cv2, pixels = opencv(), mask.view(np.uint8)
    return lambda: cv2.distanceTransform(pixels, cv2.DIST_C, 3)


def by_edt(labels):
    edt = pytest.importorskip("edt")
    return lambda: edt.edt(labels, parallel=1, black_border=False)


def object_by_object(labels):
    """What training code does: SciPy on the bounding box of every instance."""
    from scipy import ndimage as ndi

    def run():
        out = np.zeros_like(labels)
        for label, box in enumerate(ndi.find_objects(labels), 1):
            if box is None:
                continue
            wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
            inside = labels[wider] == label
            out[wider][inside] = ndi.distance_transform_cdt(inside, "chessboard")[inside]
        return out

    return run


MASKS = {
    "nuclix": lambda mask: lambda: chessboard_distance(mask),
    "OpenCV": by_opencv,
    "SciPy": by_scipy,
}
INSTANCES = {
    "nuclix": lambda labels: lambda: instance_distance(labels),
    "edt (Euclidean)": by_edt,
    "SciPy by object": object_by_object,
}


@pytest.mark.parametrize("who", MASKS)
@pytest.mark.parametrize("size", SIZES)
def test_chessboard_distance(benchmark, size, who):
    mask = predicted(size)[0] > np.float32(0.5)
    found = race(benchmark, "chessboard_distance", who, MASKS, mask)
    np.testing.assert_array_equal(found, chessboard_distance(mask))


@pytest.mark.parametrize("who", INSTANCES)
@pytest.mark.parametrize("size", SIZES)
def test_instance_distance(benchmark, size, who):
    labels = touching(size)
    found = race(benchmark, "instance_distance", who, INSTANCES, labels)
    if "Euclidean" not in who:
        np.testing.assert_array_equal(found, instance_distance(labels))
