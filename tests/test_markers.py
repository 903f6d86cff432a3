"""Markers and watershed or random walks: the conformance suite, oracles, hand-made maps, bad parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.plugins.postprocessors._random_walker import random_walker
from nuclix.plugins.postprocessors.markers import Markers
from nuclix.testing.postprocessor import assert_same_regions, check_postprocessor

BETA = 90.0


def predicted(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Three maps as a network might give them: nuclei, what is left of them when shrunk, ridges between some."""
    rng = np.random.default_rng(seed)
    smooth = [ndi.gaussian_filter(rng.standard_normal(shape), sigma) for sigma in (5, 2, 2)]
    height, fine, ridge = (item / item.std() for item in smooth)
    maps = [height, height - 0.7 + 0.5 * fine, ridge - 1]
    return np.stack([1 / (1 + np.exp(-3 * item)) for item in maps]).astype(np.float32)


@pytest.mark.parametrize(
    "processor",
    [
        Markers(),
        Markers(nuclei=0.3, marker=0.2, min_marker=0, min_area=20),
        Markers(nuclei=-1),
        Markers(method="random-walker"),
        Markers(method="random-walker", nuclei=0.3, beta=0, min_area=20),
    ],
    ids=str,
)
def test_conforms(processor: Markers) -> None:
    check_postprocessor(processor, predicted((110, 130), 1))


@pytest.mark.parametrize("method", ["watershed", "random-walker"])
def test_conforms_with_ties(method: str) -> None:
    check_postprocessor(Markers(method=method), np.round(predicted((100, 90), 2) * 4) / 4)


def drawn(nuclei: str, borderless: str, touching: str) -> NDArray[np.float32]:
    """Maps of one row, a digit a pixel, in tenths."""
    return np.array([[[int(digit) / 10 for digit in row]] for row in (nuclei, borderless, touching)], np.float32)


@pytest.mark.parametrize("method", ["watershed", "random-walker"])
def test_touching_borders_part_what_borderless_nuclei_join(method: str) -> None:
    maps = drawn("0999969990", "0899999980", "0000090000")
    split = Markers(method=method, min_marker=0)
    np.testing.assert_array_equal(split.split(maps, split.foreground(maps)), [[0, 1, 1, 1, 1, 1, 2, 2, 2, 0]])
    maps[2] = 0
    np.testing.assert_array_equal(split.split(maps, split.foreground(maps)), [[0, 1, 1, 1, 1, 1, 1, 1, 1, 0]])


@pytest.mark.parametrize("method", ["watershed", "random-walker"])
def test_a_nucleus_without_a_marker_is_kept_whole(method: str) -> None:
    maps = drawn("0990999909", "0000099000", "0000000000")
    split = Markers(method=method, min_marker=0)
    labels = split.split(maps, split.foreground(maps))
    assert_same_regions(labels, np.array([[0, 1, 1, 0, 2, 2, 2, 2, 0, 3]], np.int32))


def test_small_markers_do_not_count_and_small_nuclei_go() -> None:
    maps = drawn("0999999990", "0990999990", "0000000000")
    for fields, expected in (
        ({"min_marker": 2}, [0, 1, 1, 1, 2, 2, 2, 2, 2, 0]),
        ({"min_marker": 3}, [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
        ({"min_marker": 0, "min_area": 4}, [0, 0, 0, 0, 1, 1, 1, 1, 1, 0]),
        ({"min_marker": 9, "min_area": 9}, [0] * 10),
    ):
        split = Markers(**fields)  # type: ignore[arg-type]
        np.testing.assert_array_equal(split.split(maps, split.foreground(maps)), [expected])


@pytest.mark.parametrize("method", ["watershed", "random-walker"])
def test_labels_are_4_connected(method: str) -> None:
    maps = predicted((160, 150), 3)
    split = Markers(method=method, nuclei=0.3, min_marker=0)
    labels = split.split(maps, split.foreground(maps))
    assert labels.max() > 10
    for number in range(1, labels.max() + 1):
        assert ndi.label(labels == number)[1] == 1


def test_perfect_maps_give_the_nuclei_back() -> None:
    from blobs import blob_labels
    from nuclix.ext.overlap import aji, overlap_table
    from nuclix.plugins.recipes.multihead import MultiHeadRecipe

    labels = blob_labels((140, 150), seed=3)
    maps = MultiHeadRecipe().targets(labels)
    soft = np.stack([ndi.gaussian_filter(item, 0.7) for item in maps]).astype(np.float32)
    for method in ("watershed", "random-walker"):
        split = Markers(method=method)
        assert aji(overlap_table(labels, split.split(soft, split.foreground(soft)))) > 0.8


def one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, _ = ndi.label(mask)
    return np.asarray(pieces == np.argmax(np.bincount(pieces[mask], minlength=2)[1:]) + 1)


@pytest.mark.parametrize("seed", range(6))
def test_random_walker_is_that_of_scikit_image(seed: int) -> None:
    """Theirs divides beta by ten standard deviations of the image, and marks what takes no part with -1."""
    from skimage.segmentation import random_walker as theirs

    rng = np.random.default_rng(seed)
    image = ndi.gaussian_filter(rng.random((24, 27)), 1).astype(np.float32)
    mask = one_piece(ndi.gaussian_filter(rng.standard_normal(image.shape), 2) > -0.05)
    places = rng.permutation(np.argwhere(mask))[:4]
    markers = np.zeros(image.shape, np.int32)
    markers[tuple(places.T)] = [1, 2, 3, 4]
    given_to_them = np.where(mask, markers, -1)
    heights = image.astype(np.float64)
    expected = theirs(heights, given_to_them, beta=BETA * 10 * heights.std(), mode="bf", tol=1e-9)
    found = random_walker(image, markers, mask, BETA)
    assert not found[~mask].any()
    assert (found[mask] == expected[mask]).mean() > 0.98


@given(
    arrays(np.bool_, st.tuples(st.integers(2, 7), st.integers(2, 7))),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 5.0, 130.0]),
)
@settings(max_examples=60, deadline=None)
def test_random_walker_solves_grady_s_equations(drawn_mask: NDArray[np.bool_], seed: int, beta: float) -> None:
    """Oracle: the chain of steps, written out as a dense absorbing Markov chain."""
    if drawn_mask.sum() < 2:
        return
    mask = one_piece(drawn_mask)
    rng = np.random.default_rng(seed)
    image = rng.random(mask.shape).astype(np.float32)
    places = [tuple(place) for place in np.argwhere(mask)]
    markers = np.zeros(mask.shape, np.int32)
    for number, place in enumerate(places[:: max(1, len(places) // 3)], 1):
        markers[place] = number
    steps = np.zeros((len(places), len(places)))
    for one, (row, col) in enumerate(places):
        for other, place in enumerate(places):
            if abs(row - place[0]) + abs(col - place[1]) == 1:
                difference = float(image[row, col]) - float(image[place])
                steps[one, other] = np.exp(-beta * difference**2) + 1e-6
    known = np.array([markers[place] > 0 for place in places])
    walks = steps / np.maximum(steps.sum(1, keepdims=True), 1e-300)
    names = np.array([markers[place] for place in places])[known]
    reach = np.linalg.solve(np.eye((~known).sum()) - walks[~known][:, ~known], walks[~known][:, known])
    share = np.stack([reach[:, names == name].sum(1) for name in range(1, names.max() + 1)], 1)
    found = random_walker(image, markers, mask, beta)
    label = np.array([found[place] for place in places])
    np.testing.assert_array_equal(label[known], names)
    for name in np.unique(names):
        parts, count = ndi.label(found == name)
        assert all((markers[parts == part] == name).any() for part in range(1, count + 1))
    settled = label[~known] > 0
    share, label = share[settled], label[~known][settled]
    chosen = np.take_along_axis(share, label[:, None] - 1, 1)[:, 0]
    assert (chosen >= share.max(1, initial=0) - 1e-6).all()


def test_random_walker_without_or_with_one_marker() -> None:
    mask = np.array([[True, True, False]])
    image = np.zeros(mask.shape, np.float32)
    np.testing.assert_array_equal(random_walker(image, np.zeros((1, 3), np.int32), mask, 1), [[0, 0, 0]])
    np.testing.assert_array_equal(random_walker(image, np.array([[0, 7, 0]], np.int32), mask, 1), [[7, 7, 0]])


def test_score_is_the_nucleus_probability() -> None:
    maps = np.array([[[-1, 0.25, 2]], [[0, 0, 0]], [[9, 9, 9]]], np.float32)
    np.testing.assert_array_equal(Markers().score(maps), [[0, 0.25, 1]])


@pytest.mark.parametrize(
    "bad",
    [
        {"nuclei": float("nan")},
        {"marker": float("inf")},
        {"min_marker": -1},
        {"min_area": -1},
        {"method": "flood"},
        {"beta": -1.0},
        {"beta": float("nan")},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Markers(**bad)
