"""Expanded labels against every labelled pixel tried, and scikit-image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nuclix.ext.expansion import expand_labels, expansion_context
from rings import gallery

DISTANCES = st.one_of(st.integers(0, 12).map(float), st.floats(0, 12))


def sparse_labels(most: int = 16) -> st.SearchStrategy[NDArray[np.int32]]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=most)
    return shapes.flatmap(lambda shape: hnp.arrays(np.int32, shape, elements=st.integers(1, 3), fill=st.just(0)))


def plain(labels: NDArray[Any], distance: float) -> NDArray[Any]:
    """Try every labelled pixel, in raster order."""
    rows, cols = np.nonzero(labels)
    out = np.zeros_like(labels)
    if not len(rows):
        return out
    y, x = np.indices(labels.shape)
    squares = (y[..., None] - rows) ** 2 + (x[..., None] - cols) ** 2
    nearest = squares.argmin(axis=-1)  # the first of equal ones
    near = np.take_along_axis(squares, nearest[..., None], -1)[..., 0] <= distance**2
    out[near] = labels[rows, cols][nearest][near]
    return out


@given(sparse_labels(), DISTANCES)
def test_any_labels(labels: NDArray[np.int32], distance: float) -> None:
    np.testing.assert_array_equal(expand_labels(labels, distance), plain(labels, distance))


@pytest.mark.parametrize("distance", [0, 1, 1.5, 3, 200])
@pytest.mark.parametrize("name", gallery())
def test_gallery(name: str, distance: float) -> None:
    labels = gallery()[name]
    np.testing.assert_array_equal(expand_labels(labels, distance), plain(labels, distance))


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 15))
def test_scikit_image_agrees_but_for_ties(seed: int, distance: float) -> None:
    from scipy import ndimage as ndi
    from skimage.segmentation import expand_labels as expected

    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((60, 70)) < 0.01, rng.integers(1, 1000, (60, 70)), 0).astype(np.int32)
    found, theirs = expand_labels(labels, distance), expected(labels, distance)
    np.testing.assert_array_equal(found > 0, theirs > 0)
    away = ndi.distance_transform_edt(labels == 0)
    for label in np.unique(found[found != theirs]):
        tied = (found == label) & (theirs != label)
        np.testing.assert_allclose(ndi.distance_transform_edt(labels != label)[tied], away[tied])


@given(sparse_labels(30), st.floats(0, 6), st.data())
def test_where_an_image_is_cut_does_not_matter(labels: NDArray[np.int32], distance: float, data: st.DataObject) -> None:
    whole = expand_labels(labels, distance)
    context = expansion_context(distance)
    row, col = data.draw(st.integers(0, labels.shape[0] - 1)), data.draw(st.integers(0, labels.shape[1] - 1))
    top, left = max(0, row - context), max(0, col - context)
    window = (slice(top, row + context + 1), slice(left, col + context + 1))
    if labels[row, col]:
        near = np.hypot(*(np.indices(labels.shape) - np.array([row, col])[:, None, None])) <= distance
        cut = np.zeros_like(whole)
        cut[window] = expand_labels(labels[window], distance)
        np.testing.assert_array_equal(cut[near], whole[near])


@given(sparse_labels(), DISTANCES, st.permutations([1, 2, 3]))
def test_the_numbers_of_labels_do_not_matter(labels: NDArray[np.int32], distance: float, names: list[int]) -> None:
    table = np.array([0, *names], np.int32)
    np.testing.assert_array_equal(expand_labels(table[labels], distance), table[expand_labels(labels, distance)])


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "u2", "u4", "i4", "i8"])
def test_every_dtype_and_order(dtype: str) -> None:
    labels = (np.random.default_rng(1).random((40, 50)) < 0.02).astype(dtype)
    expected = plain(labels.astype(np.int64), 4.0)
    for image in (labels, np.asfortranarray(labels), labels[::-1].copy()[::-1]):
        np.testing.assert_array_equal(expand_labels(image, 4.0), expected)


def test_refuses() -> None:
    for distance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="distance"):
            expand_labels(np.ones((2, 2), np.int32), distance)
    with pytest.raises(TypeError, match="whole numbers"):
        expand_labels(np.ones((2, 2)), 1.0)
