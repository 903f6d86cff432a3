"""Sums over labels against NumPy, to the last bit where the object lies elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from nuclix.ext.label_sums import label_means, label_sums
from nuclix.ext.outlines import label_outlines
from rings import gallery, label_images


def plain(labels: NDArray[np.int32], values: NDArray[np.float64]) -> list[float]:
    return [float(values[labels == label].astype(np.float64).sum()) for label in label_outlines(labels).labels]


@given(label_images(30), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_masks(labels: NDArray[np.int32], seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(labels.shape)
    np.testing.assert_allclose(label_sums(labels, values), plain(labels, values), rtol=1e-12, atol=1e-12)
    whole = np.rint(values * 100)
    assert label_sums(labels, whole).tolist() == plain(labels, whole)


@pytest.mark.parametrize("name", gallery())
def test_gallery(name: str) -> None:
    labels = gallery()[name]
    np.testing.assert_array_equal(label_sums(labels, np.ones(labels.shape, np.float32)), label_outlines(labels).pixels)


def test_many_labels() -> None:
    labels = np.random.default_rng(2).permutation(300 * 300).reshape(300, 300) + 1
    assert label_sums(labels, labels).tolist() == labels.ravel().tolist()


def test_place_does_not_matter_to_the_last_bit() -> None:
    rng = np.random.default_rng(6)
    labels = np.kron(rng.integers(0, 3, (5, 5)), np.ones((7, 9), int))
    values = rng.random(labels.shape, np.float32)
    expected = label_sums(labels, values)
    for margin in range(1, 6):
        pad = ((margin, 2), (margin, 3))
        np.testing.assert_array_equal(label_sums(np.pad(labels, pad), np.pad(values, pad, mode="edge")), expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "u1", "i4", "bool"])
def test_every_dtype_and_order(dtype: str) -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, (20, 30))
    values = (rng.random(labels.shape) < 0.5).astype(dtype)
    expected = plain(labels, values)
    values.setflags(write=False)
    assert label_sums(labels, values).tolist() == expected
    assert label_sums(labels, np.asfortranarray(values)).tolist() == expected
    assert label_sums(labels[::-1, ::-1], values[::-1, ::-1]).sum() == sum(expected)


def test_what_does_not_fit_is_refused() -> None:
    labels = np.ones((3, 4), np.int32)
    with pytest.raises(ValueError, match="shape"):
        label_sums(labels, np.ones((4, 3), np.float32))
    with pytest.raises(TypeError, match="real numbers"):
        label_sums(labels, np.ones((3, 4), np.complex64))
    with pytest.raises(TypeError, match="whole numbers"):
        label_sums(np.ones((3, 4)), np.ones((3, 4)))


@given(labels=arrays(np.int32, (6, 9), elements=st.integers(0, 5)), seed=st.integers(0, 99))
def test_means_are_those_of_bincount_to_the_last_bit(labels: np.ndarray, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=labels.shape).astype(np.float32)
    count = int(labels.max()) + 1
    areas = np.bincount(labels.ravel(), minlength=count)[1:]
    wanted = np.bincount(labels.ravel(), values.ravel(), count)[1:] / np.maximum(areas, 1)
    np.testing.assert_array_equal(label_means(labels, values), wanted)
    np.testing.assert_array_equal(label_means(np.asfortranarray(labels), np.asfortranarray(values)), wanted)


def test_means_take_labels_and_floats_only() -> None:
    labels = np.zeros((2, 3), np.int32)
    with pytest.raises(ValueError, match="negative"):
        label_means(labels - 1, np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="shape"):
        label_means(labels, np.zeros((3, 2), np.float32))
    with pytest.raises(TypeError):
        label_means(labels, np.zeros((2, 3)))
