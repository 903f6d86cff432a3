"""The kernels on nuclei that people drew: distances of real labels, and their split back into nuclei."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from nuclix.ext.components import connected_components
from nuclix.ext.distance import chessboard_distance, instance_distance
from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.maxima import h_maxima
from nuclix.ext.watershed import watershed

IMAGES = 3


def real_labels(shared):
    from PIL import Image

    for path in sorted((shared / "data" / "kumar16" / "labels").glob("*.png"))[:IMAGES]:
        yield np.asarray(Image.open(path))


@pytest.mark.shared
def test_distances_of_real_nuclei(shared):
    for labels in real_labels(shared):
        expected = np.zeros_like(labels)
        for label, box in enumerate(ndi.find_objects(labels.astype(np.int32)), 1):
            if box is None:
                continue
            wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
            inside = labels[wider] == label
            expected[wider][inside] = ndi.distance_transform_cdt(inside, "chessboard")[inside]
        np.testing.assert_array_equal(instance_distance(labels), expected)
        mask = labels > 0
        np.testing.assert_array_equal(chessboard_distance(mask), ndi.distance_transform_cdt(mask, "chessboard"))
        np.testing.assert_array_equal(connected_components(mask, 8)[0], ndi.label(mask, np.ones((3, 3)))[0])


@pytest.mark.shared
@pytest.mark.parametrize("connectivity", [4, 8])
def test_splits_of_real_distance_maps(shared, connectivity):
    """Full of plateaus and ties; smoothed, a network's output."""
    for labels in real_labels(shared):
        steps = instance_distance(labels).astype(np.float32)
        smooth = ndi.gaussian_filter(steps, 1.5)
        for image, h in ((steps, 0), (steps, 1), (smooth, 0), (smooth, 0.5)):
            markers = h_maxima(image, h, 0.5, connectivity)
            expected = watershed(-image, markers, image > np.float32(0.5), connectivity)
            np.testing.assert_array_equal(dynamics_watershed(image, h, 0.5, connectivity), expected)
