"""Outlines of a label image compared with the loops over objects that are usual."""

from __future__ import annotations

import numpy as np
import pytest

from maps import predicted
from nuclix.ext.label_sums import label_sums
from nuclix.ext.outlines import label_outlines
from peers import SIZES, opencv, race

FLOOR = np.float32(0.5)


def labelled(size):
    """Return labels with the rough edges of a thresholded map, and its distance."""
    distance, labels = predicted(size)
    return labels * (distance > FLOOR), distance


def by_opencv_in_boxes(labels):
    """The best a loop can do: each object's box is found by SciPy, its mask made and followed there."""
    from scipy import ndimage as ndi

    cv2 = opencv()

    def contours():
        found = {}
        for label, box in enumerate(ndi.find_objects(labels), 1):
            if box is not None:
                mask = (labels[box] == label).astype(np.uint8)
                place = (box[1].start, box[0].start)
                found[label] = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=place)[0]
        return found

    return contours


def by_opencv_on_masks(labels):
    """What most tools do: a mask of the whole image for each object."""
    cv2 = opencv()

    def contours():
        masks = ((label, (labels == label).astype(np.uint8)) for label in np.unique(labels[labels > 0]))
        return {label: cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0] for label, mask in masks}

    return contours


def by_skimage(labels):
    from skimage.measure import find_contours, regionprops

    return lambda: {region.label: find_contours(np.pad(region.image, 1), 0.5) for region in regionprops(labels)}


OUTLINES = {
    "nuclix": lambda labels: lambda: label_outlines(labels),
    "OpenCV in boxes": by_opencv_in_boxes,
    "OpenCV on full masks": by_opencv_on_masks,
    "scikit-image": by_skimage,
}


@pytest.mark.parametrize("who", OUTLINES)
@pytest.mark.parametrize("size", SIZES)
def test_label_outlines(benchmark, size, who):
    if who == "OpenCV on full masks" and size > SIZES[0]:
        pytest.skip("takes minutes")
    labels, _ = labelled(size)
    found = race(benchmark, "label_outlines", who, OUTLINES, labels)
    assert len(found) == len(np.unique(labels[labels > 0]))


def by_scipy(labels, values):
    from scipy import ndimage as ndi

    index = np.unique(labels[labels > 0])
    return lambda: ndi.sum_labels(values, labels, index)


SUMS = {
    "nuclix": lambda labels, values: lambda: label_sums(labels, values),
    "SciPy": by_scipy,
    "NumPy bincount": lambda labels, values: lambda: np.bincount(labels.ravel(), values.ravel()),
}


@pytest.mark.parametrize("who", SUMS)
@pytest.mark.parametrize("size", SIZES)
def test_label_sums(benchmark, size, who):
    labels, values = labelled(size)
    found = race(benchmark, "label_sums", who, SUMS, labels, values)
    inside = values[labels > 0].astype(float).sum()
    assert np.sum(found[1:] if who == "NumPy bincount" else found) == pytest.approx(inside)
