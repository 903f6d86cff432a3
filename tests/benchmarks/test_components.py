"""Connected components of masks."""

from __future__ import annotations

import numpy as np
import pytest

from maps import predicted
from nuclix.ext.components import connected_components
from peers import SIZES, diplib, opencv, race

CONNECTIVITY = 8


def by_scipy(mask):
    from scipy import ndimage as ndi

    return lambda: ndi.label(mask, np.ones((3, 3)))[0]


def by_skimage(mask):
    from skimage.measure import label

    return lambda: label(mask, connectivity=2)


def by_opencv(mask):
    cv2, pixels = opencv(), mask.view(np.uint8)
    return lambda: cv2.connectedComponents(pixels, connectivity=CONNECTIVITY)[1]


def by_diplib(mask):
    dip = diplib()
    return lambda: dip.Label(mask, 2)


CONTENDERS = {
    "nuclix": lambda mask: lambda: connected_components(mask, CONNECTIVITY)[0],
    "OpenCV": by_opencv,
    "SciPy": by_scipy,
    "skimage.measure": by_skimage,
    "DIPlib": by_diplib,
}


@pytest.mark.parametrize("who", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
def test_connected_components(benchmark, size, who):
    mask = predicted(size)[0] > np.float32(0.5)
    found = race(benchmark, "connected_components", who, CONTENDERS, mask)
    assert np.max(found) == connected_components(mask, CONNECTIVITY)[1]
