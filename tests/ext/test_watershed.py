"""Watershed from markers against scikit-image and the plain priority queue."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi
from skimage.segmentation import watershed as skimage_watershed

import gallery
import plain
from nuclix.ext.watershed import watershed

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
HEIGHTS = gallery.heights()


@given(st.data(), SHAPES, st.sampled_from([4, 8]))
def test_equals_the_priority_queue(data, shape, connectivity):
    levels = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan])
    image = data.draw(hnp.arrays(np.float32, shape, elements=levels))
    markers = data.draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2, 9])))
    mask = data.draw(st.none() | hnp.arrays(np.bool_, shape))
    expected = plain.watershed(image, markers, mask, connectivity)
    np.testing.assert_array_equal(watershed(image, markers, mask, connectivity), expected)


@given(st.data(), st.sampled_from([4, 8]))
def test_wide_markers_are_not_flooded_inside(data, connectivity):
    """Insides of markers and clumps of one marker take a shorter way; the outcome is that of the queue."""
    levels = st.sampled_from([-1.0, 0.0, 1.0, np.nan])
    coarse = data.draw(hnp.arrays(np.int32, (3, 3), elements=st.sampled_from([0, 1, 1, 2])))
    markers = np.kron(coarse, np.ones((4, 4), np.int32))
    image = data.draw(hnp.arrays(np.float32, markers.shape, elements=levels, fill=st.just(0.5)))
    mask = data.draw(hnp.arrays(np.bool_, markers.shape, fill=st.just(True)))
    expected = plain.watershed(image, markers, mask, connectivity)
    np.testing.assert_array_equal(watershed(image, markers, mask, connectivity), expected)


def some_markers(shape, seed, blobs):
    rng = np.random.default_rng(seed)
    points = rng.random(shape) < 20 / (shape[0] * shape[1])
    return ndi.label(ndi.binary_dilation(points, iterations=2) if blobs else points)[0]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("blobs", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_image_without_ties(seed, blobs, connectivity):
    image = gallery.predicted((80, 70), seed, smoothing=1 + seed)
    markers = some_markers(image.shape, seed, blobs)
    footprint = ndi.generate_binary_structure(2, connectivity // 4)
    for mask in (None, image < 6):
        expected = skimage_watershed(image, markers, mask=mask, connectivity=footprint)
        found = watershed(image, markers, mask, connectivity)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", HEIGHTS)
def test_equals_the_priority_queue_on_the_gallery(name):
    image = HEIGHTS[name]
    markers = some_markers(image.shape, 5, False) if image.size else np.zeros(image.shape, int)
    for connectivity in (4, 8):
        expected = plain.watershed(image, markers, image > 0, connectivity)
        np.testing.assert_array_equal(watershed(image, markers, image > 0, connectivity), expected)


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), st.sampled_from([4, 8]))
def test_a_clump_is_flooded_alike_wherever_it_lies(data, shape, connectivity):
    image = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    markers = data.draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3])))
    around = tuple(data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, np.add(shape, np.sum(around, axis=1)), np.uint8)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(around, shape, strict=True))
    noise[inner] = image
    found = watershed(noise, np.pad(markers, around), np.pad(mask, around), connectivity)[inner]
    np.testing.assert_array_equal(found, watershed(image, markers, mask, connectivity))


@pytest.mark.parametrize("dtype", ["b", "B", "h", "H", "i", "l", "e", "f", ">f4"])
def test_dtypes_and_memory_orders(dtype):
    values = np.random.default_rng(3).integers(0, 90, (40, 60))
    markers = some_markers(values.shape, 1, False)
    expected = watershed(values, markers, values > 20)
    for order in (np.ascontiguousarray, np.asfortranarray, lambda array: array.repeat(2, 0)[::2]):
        arrays = [order(array) for array in (values.astype(dtype), markers.astype(np.uint16), values > 20)]
        before = [array.copy() for array in arrays]
        for array in arrays:
            array.setflags(write=False)
        np.testing.assert_array_equal(watershed(*arrays), expected)
        for array, copy in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_more_than_65535_labels():
    markers = np.zeros((640, 900), np.int32)
    markers[::2, ::2] = np.arange(1, 320 * 450 + 1).reshape(320, 450)
    np.testing.assert_array_equal(watershed(np.zeros_like(markers), markers)[::2, ::2], markers[::2, ::2])


def test_labels_may_be_any_positive_int32():
    largest = np.iinfo(np.int32).max
    np.testing.assert_array_equal(watershed(np.array([[0, 1, 0]]), np.array([[largest, 0, 0]])), [[largest] * 3])


def test_bad_arguments_are_refused():
    image, markers = np.zeros((3, 3), np.float32), np.zeros((3, 3), int)
    with pytest.raises(ValueError, match="markers"):
        watershed(image, markers - 1)
    with pytest.raises(ValueError, match="markers"):
        watershed(image, markers + 2**31)
    with pytest.raises(ValueError, match="shape"):
        watershed(image, markers[:2])
    with pytest.raises(ValueError, match="shape"):
        watershed(image, markers, np.ones((3, 4), bool))
    with pytest.raises(TypeError, match="markers"):
        watershed(image, image)
    with pytest.raises(TypeError, match="mask"):
        watershed(image, markers, markers)
    with pytest.raises(ValueError, match="connectivity"):
        watershed(image, markers, connectivity=0)
