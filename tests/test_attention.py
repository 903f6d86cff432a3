"""The attention recipe's post-processor: the conformance suite, and each step of section 3.4 by a plain reading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage as ndi

from nuclix.ext.components import connected_components
from nuclix.plugins.postprocessors.attention import (
    UNITS,
    AttentionSplit,
    dilated,
    disc,
    eroded,
    smoothed_distance,
    window_maxima,
)
from nuclix.testing.postprocessor import check_postprocessor

masks = npst.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def attention(shape, seed, contrast=3.0):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    return (1 / (1 + np.exp(-smooth / smooth.std() * contrast))).astype(np.float32)[None]


def footprint(radius):
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return rows**2 + cols**2 <= radius**2


@pytest.mark.parametrize(
    "processor",
    [
        AttentionSplit(),
        AttentionSplit(threshold=0.2, coarse=3, fine=2, sigma=2.5, window=4),
        AttentionSplit(coarse=0, fine=0, sigma=0, window=2),
        AttentionSplit(coarse=1, fine=0, window=0),
    ],
    ids=str,
)
def test_conforms(processor):
    check_postprocessor(processor, attention((150, 170), 1))


def test_conforms_with_ties():
    check_postprocessor(AttentionSplit(), np.round(attention((120, 110), 2) * 4) / 4)


@given(masks, st.integers(0, 4))
def test_dilation_and_erosion_are_those_of_scipy(mask, radius):
    structure = footprint(radius)
    np.testing.assert_array_equal(dilated(mask, radius), ndi.binary_dilation(mask, structure))
    np.testing.assert_array_equal(eroded(mask, radius), ndi.binary_erosion(mask, structure, border_value=1))


@settings(deadline=None)
@given(masks, st.integers(0, 3), st.integers(0, 2))
def test_foreground_is_opening_and_closing_coarse_then_fine(mask, coarse, fine):
    """On a plane without end: nothing happens at the array's edge but that there is no attention beyond it."""
    far = 4 * (coarse + fine) + 2
    plane = np.pad(mask, far)
    for radius in (coarse, fine):
        if radius:
            plane = ndi.binary_opening(plane, footprint(radius))
            plane = ndi.binary_closing(plane, footprint(radius))
    found = AttentionSplit(coarse=coarse, fine=fine).foreground(mask[None].astype(np.float32))
    np.testing.assert_array_equal(found, plane[far:-far, far:-far])


@settings(deadline=None)
@given(masks, st.sampled_from([0.0, 0.7, 1.0, 2.0]))
def test_the_distance_is_smoothed_clump_by_clump(mask, sigma):
    clumps, count = connected_components(mask, 8)
    expected = np.zeros(mask.shape)
    for number in range(1, count + 1):
        far = 12
        alone = np.pad(clumps == number, far)
        distance = ndi.distance_transform_edt(alone)
        smooth = ndi.gaussian_filter(distance, sigma, mode="constant") if sigma else distance
        expected += np.where(alone, smooth, 0)[far:-far, far:-far]
    found = smoothed_distance(clumps, sigma)
    np.testing.assert_allclose(found, expected, atol=1.5 / UNITS)
    assert not found[~mask].any()


@settings(deadline=None)
@given(npst.arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)), st.data())
def test_window_maxima_are_what_they_say(values, data):
    radius = data.draw(st.integers(0, 4))
    clumps, _ = connected_components(values > 0, 8)
    expected = np.zeros(values.shape, bool)
    for here in zip(*np.nonzero(clumps), strict=True):
        rivals = [
            there
            for there in zip(*np.nonzero(clumps == clumps[here]), strict=True)
            if there != here and (there[0] - here[0]) ** 2 + (there[1] - here[1]) ** 2 <= radius**2
        ]
        expected[here] = all((values[there], here) < (values[here], there) for there in rivals)
    found = window_maxima(values.astype(np.float32), clumps, radius)
    np.testing.assert_array_equal(found > 0, expected)
    np.testing.assert_array_equal(found[found > 0], np.arange(1, expected.sum() + 1))


def discs(shape, *centres):
    rows, cols = np.indices(shape)
    return np.any([(rows - row) ** 2 + (cols - col) ** 2 <= radius**2 for row, col, radius in centres], axis=0)


def test_two_discs_that_overlap_are_two_nuclei():
    mask = discs((40, 60), (20, 20, 9), (20, 36, 9))
    labels = AttentionSplit().split(mask[None].astype(np.float32), mask)
    assert labels.max() == 2
    assert labels[20, 20] == 1 and labels[20, 36] == 2
    np.testing.assert_array_equal(labels > 0, mask)
    assert abs(np.flatnonzero(labels[20] == 2)[0] - 28) <= 1, "the border lies in the middle"


def test_a_rod_is_one_nucleus():
    """All along its axis the distance is the same: a plateau wider than the window."""
    mask = np.zeros((20, 60), bool)
    mask[7:14, 5:55] = True
    assert AttentionSplit().split(mask[None].astype(np.float32), mask).max() == 1


def test_a_small_clump_beside_a_large_one_keeps_its_nucleus():
    mask = discs((40, 60), (20, 20, 9), (20, 33, 2))
    labels = AttentionSplit().split(mask[None].astype(np.float32), mask)
    assert labels.max() == 2 and labels[20, 33] not in (0, labels[20, 20])


def test_specks_go_and_pinholes_close():
    mask = discs((40, 40), (20, 20, 9))
    mask[20, 20], mask[3, 3] = False, True
    found = AttentionSplit().foreground(mask[None].astype(np.float32))
    assert found[20, 20] and not found[3, 3]


def test_halo_is_needed():
    """A pixel as far as the context can matter: with one pixel less the promise would be broken somewhere."""
    processor = AttentionSplit(coarse=1, fine=0)
    reach = 0
    for seed in range(40):
        mask = np.random.default_rng(seed).random((21, 21)) < 0.6
        before = processor.foreground(mask[None].astype(np.float32))
        mask[10, 10] ^= True
        changed = np.argwhere(processor.foreground(mask[None].astype(np.float32)) != before)
        reach = max(reach, int(np.abs(changed - 10).max(initial=0)))
    assert 1 < reach <= processor.context


def test_score_is_the_attention():
    np.testing.assert_array_equal(AttentionSplit().score(np.array([[[-1, 0.25, 2]]], np.float32)), [[0, 0.25, 1]])


def test_discs_are_round():
    assert len(disc(1)) == 5 and len(disc(2)) == 13 and len(disc(7)) == 149


@pytest.mark.parametrize(
    "bad",
    [
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"coarse": -1},
        {"fine": -1},
        {"window": -1},
        {"sigma": -0.5},
        {"sigma": float("inf")},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AttentionSplit(**bad)
