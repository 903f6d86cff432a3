"""Chessboard distances against SciPy and the plain definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

import gallery
import plain
from nuclix.ext.distance import chessboard_distance, instance_distance

MASKS = gallery.masks()
INTEGERS = [np.dtype(code) for code in "bBhHiIlLqQ"]


def scipy_distance(mask):
    distance = ndi.distance_transform_cdt(mask, "chessboard") if mask.size else np.zeros(mask.shape, int)
    return np.where(distance < 0, plain.MOST, distance)


def by_instance(labels):
    """SciPy's distance, one instance at a time."""
    out = np.zeros_like(labels)
    for label in np.unique(labels[labels != 0]):
        distance = np.minimum(scipy_distance(labels == label), min(plain.MOST, np.iinfo(labels.dtype).max))
        out[labels == label] = distance[labels == label]
    return out


@pytest.mark.parametrize("name", MASKS)
def test_equals_scipy(name):
    distance = chessboard_distance(MASKS[name])
    assert distance.dtype == np.uint16
    np.testing.assert_array_equal(distance, scipy_distance(MASKS[name]))


@pytest.mark.parametrize("name", MASKS)
def test_instances_equal_scipy_one_by_one(name):
    labels = ndi.label(MASKS[name], np.ones((3, 3)))[0] if MASKS[name].size else MASKS[name].astype(np.int32)
    rows, cols = np.indices(labels.shape)
    touching = np.where(labels > 0, labels * 4 + rows // 7 % 2 * 2 + cols // 5 % 2, 0)
    for instances in (labels, touching, touching % 3):
        np.testing.assert_array_equal(instance_distance(instances), by_instance(instances))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_instances_equal_the_definition(labels):
    np.testing.assert_array_equal(instance_distance(labels), plain.instance_distance(labels))
    np.testing.assert_array_equal(chessboard_distance(labels), plain.chessboard_distance(labels))


@settings(max_examples=30)
@given(st.integers(1, 700), st.integers(1, 700), st.data())
def test_distances_beyond_a_byte(height, width, data):
    mask = np.ones((height, width), bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = False
    np.testing.assert_array_equal(chessboard_distance(mask), scipy_distance(mask))
    np.testing.assert_array_equal(instance_distance(mask.astype(np.int32) * 9), scipy_distance(mask))


@pytest.mark.parametrize("distance", [253, 254, 255, 256, 257, 300])
@pytest.mark.parametrize("transpose", [False, True])
def test_around_the_change_of_width(distance, transpose):
    line = np.ones((3, distance + 1), np.uint8)
    line[:, 0] = 0
    line = line.T if transpose else line
    assert chessboard_distance(line).max() == distance
    np.testing.assert_array_equal(chessboard_distance(line), scipy_distance(line))


@pytest.mark.parametrize("shape", [(1, 70_000), (70_000, 1)])
def test_saturates(shape):
    line = np.ones(shape, np.uint8)
    line.flat[0] = 0
    expected = np.minimum(np.arange(70_000), plain.MOST)
    np.testing.assert_array_equal(chessboard_distance(line).ravel(), expected)
    np.testing.assert_array_equal(instance_distance(line.astype(np.int64)).ravel(), expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_dtypes_and_their_ranges(dtype):
    info = np.iinfo(dtype)
    labels = np.zeros((5, 600), dtype)
    labels[:, 1:] = info.max
    labels[2, 300] = info.min if info.min else 1
    out = instance_distance(labels)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, by_instance(labels))
    alone = instance_distance(np.ones((4, 4), dtype))
    assert (alone == min(info.max, plain.MOST)).all()


def test_labels_that_differ_in_high_bits_only():
    labels = np.array([[1, 1, 1 + 2**40, 1 + 2**40, 1 + 2**40]])
    np.testing.assert_array_equal(instance_distance(labels), [[2, 1, 1, 2, 3]])


@pytest.mark.parametrize("kernel", [chessboard_distance, instance_distance])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_memory_orders_and_read_only_input(kernel, dtype):
    mask = gallery.masks()["blobs"].astype(dtype)
    expected = kernel(mask)
    big = np.zeros((240, 270), dtype)
    big[::2, ::3] = mask
    for view in (np.asfortranarray(mask), big[::2, ::3], mask[::-1, ::-1].copy()[::-1, ::-1]):
        before = view.copy()
        view.setflags(write=False)
        np.testing.assert_array_equal(kernel(view), expected)
        np.testing.assert_array_equal(view, before)
    swapped = mask.astype(">u2") if kernel is instance_distance else mask
    np.testing.assert_array_equal(kernel(swapped), expected)


def test_any_byte_but_zero_is_foreground():
    np.testing.assert_array_equal(chessboard_distance(np.array([[0, 2, 255, 128, 0]], np.uint8)), [[0, 1, 2, 1, 0]])
    raw = np.array([[0, 2, 255]], np.uint8).view(np.bool_)
    np.testing.assert_array_equal(chessboard_distance(raw), [[0, 1, 2]])


def test_more_than_65535_instances():
    labels = np.arange(1, 300 * 900 + 1).reshape(300, 900)
    assert (instance_distance(labels) == 1).all()
    blocks = np.kron(labels, np.ones((3, 3), np.int64))
    np.testing.assert_array_equal(instance_distance(blocks)[1::3, 1::3], 2)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((3, 3), np.int32), np.zeros((3, 3), complex)])
def test_masks_of_other_dtypes_are_refused(bad):
    with pytest.raises(TypeError, match="mask"):
        chessboard_distance(bad)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((3, 3), np.float16)])
def test_labels_that_are_not_integers_are_refused(bad):
    with pytest.raises(TypeError, match="labels"):
        instance_distance(bad)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), ()])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(ValueError, match="dimensions"):
        chessboard_distance(np.zeros(shape, bool))
    with pytest.raises(ValueError, match="dimensions"):
        instance_distance(np.zeros(shape, int))
