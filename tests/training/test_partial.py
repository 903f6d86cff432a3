"""Partial annotation: every formula of the encoder-decoder's paper against a plain reading of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage as ndi

from blobs import blob_labels
from nuclix.ext.stains import EOSIN, HEMATOXYLIN
from nuclix.plugins.recipes._partial import (
    background_cluster,
    eroded,
    haematoxylin_and_eosin,
    near_nuclei,
    not_outlined,
    touching,
    two_means,
)

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
small_labels = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


def stained(amounts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """RGB of (2, H, W) amounts of haematoxylin and eosin, by the law of Beer and Lambert."""
    vectors = np.array([HEMATOXYLIN, EOSIN])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    density = np.einsum("shw,sc->hwc", amounts, vectors)
    return np.rint(256 * 10**-density - 1).clip(0, 255).astype(np.uint8)


def test_colour_deconvolution_gives_back_what_was_mixed() -> None:
    amounts = np.random.default_rng(0).uniform(0, 0.8, (2, 30, 40))
    assert np.abs(haematoxylin_and_eosin(stained(amounts)) - amounts).max() < 0.02  # 8 bits a channel


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(st.just(2), st.integers(1, 40)), elements=st.floats(-4, 4, width=16)))
def test_two_means_is_where_k_means_stands_still(points: NDArray[np.float32]) -> None:
    """Every point is nearest to the mean of its own cluster, as far as float32 tells."""
    second = two_means(points)
    if second.all() or not second.any():
        assert np.ptp(points[0]) < 1e-3  # nothing to tell apart in the dimension that starts
        return
    means = [points[:, chosen].mean(1, dtype=np.float64)[:, None] for chosen in (~second, second)]
    own, other = (np.square(points - np.where(second, *pair)).sum(0) for pair in (means[::-1], means))
    assert (own <= other + 1e-3).all()


def test_two_means_finds_two_clouds() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(400) < 0.2
    points = np.where(truth, [[3.0], [-1.0]], [[0.0], [0.0]]) + rng.normal(0, 0.3, (2, 400))
    assert np.array_equal(two_means(points.astype(np.float32)), truth)


@pytest.mark.parametrize("share", [0.1, 0.45])
def test_the_larger_cluster_is_background(share: float) -> None:
    dark = np.random.default_rng(2).random((60, 60)) < share
    amounts = np.where(dark, [[[0.7]], [[0.2]]], [[[0.1]], [[0.4]]])
    assert np.array_equal(background_cluster(stained(amounts)), ~dark)


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_an_image_of_one_colour_is_background(shade: int) -> None:
    assert background_cluster(np.full((8, 9, 3), shade, np.uint8)).all()


@settings(max_examples=80, deadline=None)
@given(masks, st.integers(0, 4))
def test_erosion_is_by_a_disc_and_the_edge_erodes_nothing(mask: NDArray[np.bool_], radius: int) -> None:
    rows, cols = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    expected = ndi.binary_erosion(mask, rows**2 + cols**2 <= radius**2, border_value=1)
    assert np.array_equal(eroded(mask, radius), expected)


@settings(max_examples=60, deadline=None)
@given(masks, st.floats(0, 5), st.floats(0, 2))
def test_near_nuclei_is_equations_2_and_3(nuclei: NDArray[np.bool_], alpha: float, beta: float) -> None:
    found = near_nuclei(nuclei, alpha, beta)
    rows, cols = np.indices(nuclei.shape)
    for row, col in np.ndindex(nuclei.shape):
        distances = np.hypot(rows - row, cols - col)[nuclei]
        if not distances.size:
            expected = 0.0
        elif distances.min() <= alpha:
            expected = 1.0
        else:
            expected = float(np.exp(-beta * (distances.min() - alpha)))
        assert found[row, col] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(small_labels)
def test_touching_pixels_have_another_nucleus_beside_them(labels: NDArray[np.int32]) -> None:
    found = touching(labels)
    for row, col in np.ndindex(labels.shape):
        around = labels[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        expected = labels[row, col] > 0 and bool(((around > 0) & (around != labels[row, col])).any())
        assert found[row, col] == expected


def test_a_share_of_the_nuclei_is_outlined() -> None:
    labels = (np.arange(4000) // 2).reshape(40, 100).astype(np.int32)
    left_out = not_outlined(labels, 0.3)
    whole = [left_out[labels == name].all() or not left_out[labels == name].any() for name in range(2000)]
    assert all(whole), "a nucleus is outlined or not, whole"
    assert left_out[labels > 0].mean() == pytest.approx(0.7, abs=0.03)


def test_outlined_nuclei_stay_so_as_the_share_grows() -> None:
    labels = blob_labels((80, 80), seed=3, count=40)
    shares = [not_outlined(labels, share) for share in (0.1, 0.4, 0.8, 1.0)]
    assert all(not (more & ~fewer).any() for fewer, more in itertools.pairwise(shares))
    assert not shares[-1].any() and shares[0].any()
    assert not shares[0][labels == 0].any()
