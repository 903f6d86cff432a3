"""h-maxima, watershed from markers, and both in one pass, as DIST splits: p1 = 0.5, p2 = 0.5."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maps import predicted
from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.maxima import h_maxima
from nuclix.ext.watershed import watershed
from peers import SIZES, diplib, opencv, race, simpleitk

H = 0.5
FLOOR = 0.5
LARGEST = 8000


def floored(image):
    return np.maximum(image, np.float32(FLOOR))


def skimage_maxima(image):
    from scipy import ndimage as ndi
    from skimage.morphology import h_maxima as peaks

    return lambda: ndi.label(peaks(floored(image), H, footprint=ndi.generate_binary_structure(2, 1)))[0]


def simpleitk_maxima(image):
    sitk = simpleitk()
    picture = sitk.GetImageFromArray(floored(image))
    return lambda: sitk.ConnectedComponent(
        sitk.RegionalMaxima(sitk.HMaxima(picture, H), backgroundValue=0, foregroundValue=1)
    )


def diplib_maxima(image):
    dip, picture = diplib(), floored(image)
    return lambda: dip.Maxima(dip.HMaxima(picture, H, 1), 1, "labels")


def skimage_watershed(image, markers):
    from skimage.segmentation import watershed as flood

    lows, mask = -image, image > np.float32(FLOOR)
    return lambda: flood(lows, markers, mask=mask, connectivity=1)


def opencv_watershed(image, markers):
    """Eight bits, 8-connected, no mask: the background is a marker."""
    cv2 = opencv()
    grey = np.clip(255 - image * 10, 0, 255).astype(np.uint8)
    colours = np.dstack([grey] * 3)
    seeds = np.where(image > np.float32(FLOOR), markers, markers.max() + 1).astype(np.int32)
    return lambda: cv2.watershed(colours, seeds.copy())


def diplib_watershed(image, markers):
    dip, seeds, mask = diplib(), markers.astype(np.uint32), image > np.float32(FLOOR)
    return lambda: dip.SeededWatershed(image, seeds, mask, 1, 0, 0, {"high first", "labels", "no gaps"})


def skimage_both(image):
    from scipy import ndimage as ndi
    from skimage.morphology import h_maxima as peaks
    from skimage.segmentation import watershed as flood

    cross = ndi.generate_binary_structure(2, 1)

    def run():
        lifted = floored(image)
        markers = ndi.label(peaks(lifted, H, footprint=cross), cross)[0]
        return flood(-lifted, markers, mask=image > np.float32(FLOOR), connectivity=cross)

    return run


def diplib_both(image):
    """Leaves the pixels between regions unlabelled, and is faster for it."""
    dip = diplib()
    return lambda: dip.Watershed(image, image > np.float32(FLOOR), 1, H, 0, {"high first", "labels"})


MAXIMA = {
    "nuclix": lambda image: lambda: h_maxima(image, H, FLOOR),
    "scikit-image": skimage_maxima,
    "SimpleITK": simpleitk_maxima,
    "DIPlib": diplib_maxima,
}
FROM_MARKERS = {
    "nuclix": lambda image, markers: lambda: watershed(-image, markers, image > np.float32(FLOOR)),
    "scikit-image": skimage_watershed,
    "OpenCV (8 bit)": opencv_watershed,
    "DIPlib": diplib_watershed,
}
BOTH = {
    "nuclix": lambda image: lambda: dynamics_watershed(image, H, FLOOR),
    "scikit-image": skimage_both,
    "DIPlib": diplib_both,
}


@pytest.mark.parametrize("who", MAXIMA)
@pytest.mark.parametrize("size", SIZES)
def test_h_maxima(benchmark, size, who):
    race(benchmark, "h_maxima", who, MAXIMA, predicted(size)[0])


@pytest.mark.parametrize("who", FROM_MARKERS)
@pytest.mark.parametrize("size", SIZES)
def test_watershed(benchmark, size, who):
    image = predicted(size)[0]
    race(benchmark, "watershed", who, FROM_MARKERS, image, h_maxima(image, H, FLOOR))


# At the largest size peers take minutes; nuclix shows there that its cost per pixel stays.
@pytest.mark.parametrize(("size", "who"), [*itertools.product(SIZES, BOTH), (LARGEST, "nuclix")])
def test_dynamics_watershed(benchmark, size, who):
    image = predicted(size)[0]
    found = race(benchmark, "dynamics_watershed", who, BOTH, image)
    if who == "scikit-image":
        differing = np.mean(found != dynamics_watershed(image, H, FLOOR))
        assert differing < 1e-3, "the same but for ties and dynamics within rounding of h"
