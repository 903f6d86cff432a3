"""Connected components against SciPy and the plain definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

import gallery
import plain
from nuclix.ext.components import connected_components, renamed, without_small

MASKS = gallery.masks()


def scipy_components(mask, connectivity):
    """SciPy numbers in raster order too."""
    if not mask.size:
        return np.zeros(mask.shape, np.int32), 0
    return ndi.label(mask, ndi.generate_binary_structure(2, connectivity // 4))


def assert_equal(found, expected):
    assert found[1] == expected[1]
    assert found[0].dtype == np.int32
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", MASKS)
def test_equals_scipy(name, connectivity):
    assert_equal(connected_components(MASKS[name], connectivity), scipy_components(MASKS[name], connectivity))


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_equals_the_definition(mask):
    for connectivity in (4, 8):
        assert_equal(connected_components(mask, connectivity), plain.connected_components(mask, connectivity))


@pytest.mark.parametrize("width", [*range(1, 34), 63, 64, 65])
def test_runs_at_every_place_of_a_word(width):
    rng = np.random.default_rng(width)
    for share in (0.5, 0.9, 1.0):
        mask = rng.random((6, width)) < share
        assert_equal(connected_components(mask, 8), scipy_components(mask, 8))


def test_more_than_65535_components():
    mask = np.zeros((600, 1200), bool)
    mask[::2, ::2] = True
    labels, count = connected_components(mask)
    assert count == 300 * 600
    np.testing.assert_array_equal(labels[mask], np.arange(1, count + 1))


def test_components_that_meet_late():
    """Long trees of joins: combs whose teeth meet in the last row only, nested."""
    rows, cols = np.indices((200, 201))
    mask = (cols % 2 == 0) | (rows == 199)
    assert connected_components(mask, 4)[1] == 1
    assert_equal(connected_components(mask[:-1], 4), scipy_components(mask[:-1], 4))
    vees = (abs(cols - 100) + rows) % 4 == 0
    assert_equal(connected_components(vees, 8), scipy_components(vees, 8))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_memory_orders_and_read_only_input(dtype):
    mask = MASKS["blobs"].astype(dtype)
    expected = connected_components(mask)
    big = np.zeros((240, 180), dtype)
    big[::2, ::2] = mask
    for view in (np.asfortranarray(mask), big[::2, ::2], mask[:, ::-1].copy()[:, ::-1]):
        before = view.copy()
        view.setflags(write=False)
        assert_equal(connected_components(view), expected)
        np.testing.assert_array_equal(view, before)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="connectivity"):
        connected_components(np.zeros((2, 2), bool), 6)
    with pytest.raises(TypeError, match="mask"):
        connected_components(np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="dimensions"):
        connected_components(np.zeros(4, bool))


@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=8),
        elements={"min_value": 0, "max_value": 6},
    )
)
def test_small_labels_go_and_the_others_keep_their_order(labels):
    before = labels.copy()
    for least in (0, 1, 2, 5):
        found = without_small(labels, least)
        names = [name for name in range(1, 7) if (labels == name).sum() >= max(least, 1)]
        expected = np.zeros(labels.shape, np.int32)
        for number, name in enumerate(names, 1):
            expected[labels == name] = number
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)


@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)),
    st.sampled_from([4, 8]),
    st.integers(0, 6),
)
def test_small_components_are_left_out_as_small_labels_are(mask, connectivity, least):
    found, count = connected_components(mask, connectivity, min_area=least)
    expected = without_small(connected_components(mask, connectivity)[0], least)
    np.testing.assert_array_equal(found, expected)
    assert count == expected.max(initial=0)


def test_labels_without_a_name_are_refused():
    labels = np.array([[0, 2]], np.int32)
    assert renamed(labels, [5, 6, 7]).tolist() == [[5, 7]]
    for wrong in (labels, -labels):
        with pytest.raises(ValueError, match="names"):
            renamed(wrong, [5, 6])
