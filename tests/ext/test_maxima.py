"""Maxima by dynamics against scikit-image and the plain definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi
from skimage.morphology import h_maxima as skimage_h_maxima
from skimage.morphology import local_maxima

import gallery
import plain
from nuclix.ext.maxima import h_maxima

SMALL = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)
HEIGHTS = gallery.heights()


@given(
    hnp.arrays(np.int8, SMALL, elements=st.integers(-3, 3)),
    st.sampled_from([0, 0.5, 1, 2, 5]),
    st.sampled_from([None, -2, 0, 1.5]),
    st.sampled_from([4, 8]),
)
def test_equals_the_definition(image, h, floor, connectivity):
    np.testing.assert_array_equal(
        h_maxima(image, h, floor, connectivity), plain.h_maxima(image, h, floor, connectivity)
    )


@given(hnp.arrays(np.float32, SMALL, elements=st.sampled_from([-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan])))
def test_equals_the_definition_for_odd_floats(image):
    for floor in (-1, 0, -np.inf):
        np.testing.assert_array_equal(h_maxima(image, 0.5, floor), plain.h_maxima(image, 0.5, floor, 4))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("h", [0, 0.07, 0.5, 2.3])
@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_image_without_ties(seed, h, connectivity):
    floor = 4.003
    image = gallery.predicted((70, 90), seed, smoothing=1 + seed)
    footprint = ndi.generate_binary_structure(2, connectivity // 4)
    floored = np.pad(np.maximum(image, np.float32(floor)), 1, constant_values=np.float32(floor)).astype(float)
    peaks = skimage_h_maxima(floored, h, footprint=footprint) if h else local_maxima(floored, footprint=footprint)
    expected = ndi.label(peaks, footprint)[0][1:-1, 1:-1]
    np.testing.assert_array_equal(h_maxima(image, h, floor, connectivity), expected)


@pytest.mark.parametrize("name", [name for name, image in HEIGHTS.items() if image.size and not np.isnan(image).any()])
def test_every_regional_maximum_counts_for_h_0(name):
    image = HEIGHTS[name]
    for connectivity in (4, 8):
        footprint = ndi.generate_binary_structure(2, connectivity // 4)
        peaks = local_maxima(np.pad(np.maximum(image, 0), 1), footprint=footprint)[1:-1, 1:-1]
        expected = ndi.label(peaks & (image > 0), footprint)[0]
        np.testing.assert_array_equal(h_maxima(image, 0, 0, connectivity), expected)


def test_the_comparison_is_strict():
    image = np.array([[0, 5, 2, 4, 0]])
    assert h_maxima(image, 2, 0).max() == 1
    assert h_maxima(image, np.nextafter(2, 0), 0).max() == 2
    assert h_maxima(image, 5, 0).max() == 0
    assert h_maxima(image, 4.99, 0).max() == 1


def test_of_equal_maxima_the_first_is_higher():
    np.testing.assert_array_equal(h_maxima(np.array([[5, 3, 5, 4, 5]]), 2, 0), [[1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(h_maxima(np.array([[5, 3, 5, 4, 5]]), 1, 0), [[1, 0, 2, 0, 0]])


def test_a_plateau_is_one_maximum_whatever_its_shape():
    ring = gallery.spiral(31).astype(np.uint16) * 9
    np.testing.assert_array_equal(h_maxima(ring, 0, 0), ring > 0)
    np.testing.assert_array_equal(h_maxima(np.full((9, 9), 3.5, np.float32), 1), np.ones((9, 9)))


def test_without_floor_the_highest_always_counts():
    image = np.array([[1, 2, 1], [1, 1, 1]], np.float32)
    np.testing.assert_array_equal(h_maxima(image, 1e30), [[0, 1, 0], [0, 0, 0]])
    assert h_maxima(np.full((2, 2), np.nan, np.float32), 0).max() == 0
    np.testing.assert_array_equal(h_maxima(np.array([[-5, np.nan, -7]], np.float32), 3), [[1, 0, 2]])


@pytest.mark.parametrize("dtype", ["?", "b", "B", "h", "H", "i", "I", "l", "L", "e", "f", ">i4", ">f4"])
def test_dtypes_and_memory_orders(dtype):
    values = np.random.default_rng(3).integers(0, 2 if dtype == "?" else 90, (40, 60))
    if dtype == "?":
        with pytest.raises(TypeError, match="bool"):
            h_maxima(values.astype(bool), 1, 0)
        return
    expected = h_maxima(values.astype(np.float32), 20, 10)
    for view in (
        values.astype(dtype),
        np.asfortranarray(values.astype(dtype)),
        values.repeat(2, 1).astype(dtype)[:, ::2],
    ):
        before = view.copy()
        view.setflags(write=False)
        np.testing.assert_array_equal(h_maxima(view, 20, 10), expected)
        np.testing.assert_array_equal(view, before)


def test_more_than_65535_maxima():
    image = np.zeros((700, 800), np.uint8)
    image[::2, ::2] = 9
    out = h_maxima(image, 3, 0)
    np.testing.assert_array_equal(out[::2, ::2].ravel(), np.arange(1, 350 * 400 + 1))


def test_bad_arguments_are_refused():
    image = np.zeros((3, 3), np.float32)
    for h in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="`h`"):
            h_maxima(image, h)
    with pytest.raises(ValueError, match="floor"):
        h_maxima(image, 0, np.nan)
    with pytest.raises(ValueError, match="connectivity"):
        h_maxima(image, 0, 0, 1)
    with pytest.raises(TypeError, match="float64"):
        h_maxima(image.astype(float), 0)
    with pytest.raises(ValueError, match="2\\^24"):
        h_maxima(np.array([[2**24 + 1]]), 0)
    assert h_maxima(np.array([[2**24]]), 0).max() == 1
