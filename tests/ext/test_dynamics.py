"""The one pass against its two steps, scikit-image and the plain definition."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi
from skimage.morphology import h_maxima as skimage_h_maxima
from skimage.morphology import local_maxima
from skimage.segmentation import watershed as skimage_watershed

import gallery
import plain
from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.maxima import h_maxima
from nuclix.ext.watershed import watershed

HEIGHTS = gallery.heights()
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
DEPTHS = st.sampled_from([0, 0.5, 1, 2, 3.5])


def levels(shape, low=0, high=5):
    return hnp.arrays(np.int8, shape, elements=st.integers(low, high)).map(lambda image: image.astype(np.float32))


def in_sequence(image, h, floor, connectivity):
    inside = image > np.float32(floor)
    with np.errstate(invalid="ignore"):
        return watershed(-image, h_maxima(image, h, floor, connectivity), inside, connectivity)


@given(SHAPES.flatmap(levels), DEPTHS, st.sampled_from([-1, 0, 1, 2.5]), st.sampled_from([4, 8]))
def test_equals_the_definition(image, h, floor, connectivity):
    expected = plain.dynamics_watershed(image, h, floor, connectivity)
    np.testing.assert_array_equal(dynamics_watershed(image, h, floor, connectivity), expected)


@given(st.data(), SHAPES, DEPTHS, st.integers(0, 6))
def test_mask_and_smallest_area_equal_the_definition(data, shape, h, min_area):
    image = data.draw(levels(shape))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    expected = plain.dynamics_watershed(image, h, 0, 4, mask, min_area)
    np.testing.assert_array_equal(dynamics_watershed(image, h, 0, 4, mask, min_area), expected)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: levels(shape, 0, 9)), DEPTHS)
def test_equals_its_two_steps(image, h):
    for connectivity in (4, 8):
        expected = in_sequence(image, h, 0, connectivity)
        np.testing.assert_array_equal(dynamics_watershed(image, h, 0, connectivity), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("h", [0, 0.5, 1.5])
@pytest.mark.parametrize("name", HEIGHTS)
def test_equals_its_two_steps_on_the_gallery(name, h, connectivity):
    image = HEIGHTS[name]
    expected = in_sequence(image, h, 0, connectivity)
    np.testing.assert_array_equal(dynamics_watershed(image, h, 0, connectivity), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("h", [0, 0.1, 0.6, 2.3])
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_image_without_ties(seed, h, connectivity):
    floor = 4.003
    image = gallery.predicted((110, 90), seed, smoothing=0.7 + seed)
    footprint = ndi.generate_binary_structure(2, connectivity // 4)
    floored = np.pad(np.maximum(image, np.float32(floor)), 1, constant_values=np.float32(floor)).astype(float)
    peaks = skimage_h_maxima(floored, h, footprint=footprint) if h else local_maxima(floored, footprint=footprint)
    markers = ndi.label(peaks, footprint)[0]
    expected = skimage_watershed(-floored, markers, mask=floored > np.float32(floor), connectivity=footprint)
    np.testing.assert_array_equal(dynamics_watershed(image, h, floor, connectivity), expected[1:-1, 1:-1])


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), DEPTHS, st.sampled_from([4, 8]))
def test_a_clump_gets_the_same_regions_wherever_it_lies(data, shape, h, connectivity):
    image = data.draw(levels(shape))
    around = tuple(data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    whole = np.random.default_rng(0).integers(0, 6, np.add(shape, np.sum(around, axis=1))).astype(np.float32)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(around, shape, strict=True))
    whole[tuple(slice(part.start - 1, part.stop + 1) for part in inner)] = 0
    whole[inner] = image
    found = dynamics_watershed(whole, h, 0, connectivity)[inner]
    alone = dynamics_watershed(image, h, 0, connectivity)
    np.testing.assert_array_equal(found > 0, alone > 0)
    names = np.unique(np.stack([found[alone > 0], alone[alone > 0]]), axis=1)
    assert len(names[0]) == alone.max(initial=0)
    assert (np.diff(names[0]) > 0).all()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_big_images_go_in_batches(connectivity):
    """Clumps that are open when a batch ends, and one that stays open through all of them."""
    image = gallery.predicted((2600, 1100), 1, smoothing=3)
    image[:, 550] = 6
    image[::700] += 5
    found = dynamics_watershed(image, 0.5, 5, connectivity)
    np.testing.assert_array_equal(found, in_sequence(image, 0.5, 5, connectivity))
    columns = dynamics_watershed(np.ascontiguousarray(image.T), 0.5, 5, connectivity).T
    np.testing.assert_array_equal(columns > 0, found > 0)


def test_regions_are_connected_and_hold_their_maxima():
    image = gallery.predicted((200, 300), 3, smoothing=2)
    found = dynamics_watershed(image, 0.3, 5)
    markers = h_maxima(image, 0.3, 5)
    assert ndi.label(found > 0)[1] <= found.max()
    for label, box in enumerate(ndi.find_objects(found), 1):
        assert ndi.label(found[box] == label)[1] == 1
    np.testing.assert_array_equal(found[markers > 0], markers[markers > 0])


def test_order_of_clumps_that_fill_their_frames_badly():
    """Such clumps share one sheet: a spiral and what lies between its arms."""
    spiral = gallery.spiral(301, 6)
    rng = np.random.default_rng(4)
    image = np.where(spiral, rng.integers(1, 9, spiral.shape), 0).astype(np.float32)
    image[3::6, 3::6] += ~spiral[3::6, 3::6] * 4
    for connectivity in (4, 8):
        expected = in_sequence(image, 1, 0, connectivity)
        np.testing.assert_array_equal(dynamics_watershed(image, 1, 0, connectivity), expected)


def test_not_a_number_is_under_every_floor():
    image = np.array([[3, np.nan, 2]], np.float32)
    np.testing.assert_array_equal(dynamics_watershed(image, 0, -np.inf), [[1, 0, 2]])
    assert not dynamics_watershed(np.full((4, 4), np.nan, np.float32), 0, -1e30).any()


def test_floors_compare_as_float32_as_numpy_does():
    image = np.full((2, 2), 0.1, np.float32)
    assert not dynamics_watershed(image, 0, 0.1).any()
    assert not (image > 0.1).any()


def test_memory_orders_and_read_only_input():
    image = gallery.predicted((90, 110), 2)
    expected = dynamics_watershed(image, 0.5, 4, 4, image < 9)
    for order in (np.asfortranarray, lambda array: array.repeat(3, 1)[:, ::3], lambda array: array[::-1].copy()[::-1]):
        view, mask = order(image), order((image < 9).astype(np.uint8) * 7)
        before = view.copy()
        view.setflags(write=False)
        mask.setflags(write=False)
        np.testing.assert_array_equal(dynamics_watershed(view, 0.5, 4, 4, mask), expected)
        np.testing.assert_array_equal(view, before)


def test_threads_do_not_disturb_each_other():
    images = [gallery.predicted((300, 300), seed) for seed in range(8)]
    alone = [dynamics_watershed(image, 0.3, 4) for image in images]
    found = [None] * len(images)

    def work(index):
        for _ in range(5):
            found[index] = dynamics_watershed(images[index], 0.3, 4)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_than_65535_regions():
    image = np.zeros((700, 800), np.float32)
    image[::2, ::2] = 9
    out = dynamics_watershed(image, 3, 0)
    np.testing.assert_array_equal(out[::2, ::2].ravel(), np.arange(1, 350 * 400 + 1))


def test_bad_arguments_are_refused():
    image = np.zeros((3, 3), np.float32)
    with pytest.raises(TypeError, match="float32"):
        dynamics_watershed(image.astype(float), 0, 0)
    with pytest.raises(ValueError, match="`h`"):
        dynamics_watershed(image, -0.1, 0)
    with pytest.raises(ValueError, match="floor"):
        dynamics_watershed(image, 0, np.nan)
    with pytest.raises(ValueError, match="connectivity"):
        dynamics_watershed(image, 0, 0, 5)
    with pytest.raises(ValueError, match="shape"):
        dynamics_watershed(image, 0, 0, 4, np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="dimensions"):
        dynamics_watershed(image[0], 0, 0)
