"""The resampling kernels against plain NumPy, and the taps against the definition of an area average."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.engine.slide.resample import Taps, area_taps, linear_taps
from nuclix.ext.resample import MAX_FACTOR, WEIGHT_BITS, box_mean, separable
from slides import noise_image

ONE = 1 << WEIGHT_BITS
FACTORS = st.one_of(st.sampled_from([1.37, 2.6, 1.0, 1.5, 4.0 / 3, 1.0001, 15.99]), st.floats(1, 30))
FINE = st.one_of(st.sampled_from([0.813, 0.5, 1 / 3, 0.25, 0.999]), st.floats(0.02, 1))


def plain_box_mean(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    height, width, channels = image.shape
    sums = image.reshape(height // factor, factor, width // factor, factor, channels).sum(axis=(1, 3), dtype=np.int64)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def plain_separable(image: NDArray[np.uint8], rows: Any, cols: Any) -> NDArray[np.uint8]:
    down = np.zeros((len(rows[0]), image.shape[0]), np.int64)
    right = np.zeros((len(cols[0]), image.shape[1]), np.int64)
    for matrix, (first, weights) in ((down, rows), (right, cols)):
        for index, start in enumerate(first):
            matrix[index, start : start + weights.shape[1]] = weights[index]
    sums = np.einsum("ri,ijk,cj->rck", down, image.astype(np.int64), right)
    return ((sums + (1 << (2 * WEIGHT_BITS - 1))) >> (2 * WEIGHT_BITS)).astype(np.uint8)


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32))
def test_box_mean_is_the_plain_one(factor: int, rows: int, cols: int, seed: int) -> None:
    image = noise_image(rows * factor, cols * factor, seed)
    assert (box_mean(image, factor) == plain_box_mean(image, factor)).all()


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("factor", [1, 2, 3, 7, 64, 257, 1000])
def test_box_mean_of_one_value(value: int, factor: int) -> None:
    assert (box_mean(np.full((factor, 2 * factor, 3), value, np.uint8), factor) == value).all()


def test_box_mean_rounds_half_up() -> None:
    for total in range(4 * 255 + 1):
        values = [min(255, max(0, total - 255 * place)) for place in range(4)]
        image = np.repeat(np.array(values, np.uint8).reshape(2, 2, 1), 3, axis=2)
        assert (box_mean(image, 2) == (total + 2) // 4).all()


def test_largest_sum_does_not_overflow() -> None:
    image = np.broadcast_to(np.uint8(255), (MAX_FACTOR, MAX_FACTOR, 3))
    assert box_mean(image, MAX_FACTOR).tolist() == [[[255, 255, 255]]]


@given(FACTORS, st.integers(-50, 10**6), st.integers(1, 40))
def test_area_taps_are_the_overlaps(factor: float, start: int, count: int) -> None:
    taps = area_taps(start, count, factor)
    assert taps.weights.min() >= 0
    assert (taps.weights.sum(axis=1) == ONE).all()
    for index in (0, count - 1):
        low, high = Fraction((start + index) * factor), Fraction((start + index + 1) * factor)
        for tap, weight in enumerate(taps.weights[index]):
            pixel = int(taps.first[index]) + tap
            overlap = max(Fraction(0), min(high, pixel + 1) - max(low, pixel))
            assert abs(float(overlap / (high - low)) * ONE - weight) <= 1


@given(FINE, st.integers(-50, 10**6), st.integers(1, 40))
def test_linear_taps_are_the_distances(factor: float, start: int, count: int) -> None:
    taps = linear_taps(start, count, factor)
    assert taps.weights.min() >= 0
    assert (taps.weights.sum(axis=1) == ONE).all()
    centre = (np.arange(start, start + count) + 0.5) * factor - 0.5
    place = taps.first + taps.weights[:, 1] / ONE
    assert np.abs(place - centre).max() <= 0.5 / ONE + 1e-9


@given(st.one_of(FACTORS.map(lambda f: (area_taps, f)), FINE.map(lambda f: (linear_taps, f))), st.data())
def test_taps_do_not_depend_on_the_start(kind: tuple[Any, float], data: st.DataObject) -> None:
    make, factor = kind
    start, count = data.draw(st.integers(-20, 10**5)), data.draw(st.integers(1, 60))
    inner = data.draw(st.integers(0, count - 1))
    whole, part = make(start, count, factor), make(start + inner, count - inner, factor)
    assert (whole.first[inner:] == part.first).all()
    assert (whole.weights[inner:] == part.weights).all()


@given(FACTORS, FACTORS, st.integers(0, 2**32))
def test_separable_is_the_plain_one(down: float, right: float, seed: int) -> None:
    rows, cols = area_taps(seed % 97, 7, down), area_taps(seed % 89, 9, right)
    image = noise_image(rows.stop - rows.start, cols.stop - cols.start, seed)
    assert (
        separable(image, rows.relative, cols.relative) == plain_separable(image, rows.relative, cols.relative)
    ).all()


@pytest.mark.parametrize("factor", [1.37, 2.6, 7.77])
def test_area_average_is_close_to_the_exact_one(factor: float) -> None:
    """11-bit weights and one rounding: within a grey level of real arithmetic."""
    taps = area_taps(3, 20, factor)
    image = noise_image(taps.stop - taps.start, taps.stop - taps.start)
    edges = np.arange(3, 24) * factor - taps.start
    cumulative = np.vstack([np.zeros((1, *image.shape[1:])), np.cumsum(image.astype(float), axis=0)])
    places = np.arange(len(cumulative))
    flat = cumulative.reshape(len(cumulative), -1)
    rows = np.diff([[np.interp(edge, places, line) for line in flat.T] for edge in edges], axis=0) / factor
    sums = np.cumsum(rows.reshape(20, image.shape[1], 3), axis=1)
    sums = np.concatenate([np.zeros((20, 1, 3)), sums], axis=1)
    exact = np.empty((20, 20, 3))
    for row in range(20):
        for channel in range(3):
            exact[row, :, channel] = np.diff(np.interp(edges, np.arange(sums.shape[1]), sums[row, :, channel])) / factor
    assert np.abs(separable(image, taps.relative, taps.relative) - exact).max() < 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda image: box_mean(image.astype(float), 2), TypeError),
        (lambda image: box_mean(image[..., 0], 2), ValueError),
        (lambda image: box_mean(image, 5), ValueError),
        (lambda image: box_mean(image, 0), ValueError),
        (lambda image: box_mean(image, MAX_FACTOR + 1), ValueError),
        (lambda image: separable(image, (np.array([5]), np.array([[ONE, 0]])), _identity(6)), ValueError),
        (lambda image: separable(image, (np.array([-1]), np.array([[ONE]])), _identity(6)), ValueError),
        (lambda image: separable(image, (np.array([0]), np.array([[ONE - 1]])), _identity(6)), ValueError),
        (lambda image: separable(image, (np.array([0]), np.array([[2 * ONE, -ONE]])), _identity(6)), ValueError),
        (lambda image: separable(image, (np.array([0, 1]), np.array([[ONE]])), _identity(6)), ValueError),
        (lambda image: separable(image, (np.array([0.0]), np.array([[ONE]])), _identity(6)), TypeError),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(noise_image(6, 6))


def _identity(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(size), np.full((size, 1), ONE)


def test_inputs_are_not_touched_and_may_be_read_only_or_strided() -> None:
    image = noise_image(12, 12)
    image.flags.writeable = False
    view = image[::2, ::-2]
    before = view.copy()
    assert (box_mean(view, 2) == plain_box_mean(before, 2)).all()
    assert (separable(view, _identity(6), _identity(6)) == before).all()
    assert (view == before).all()


def test_nothing_in_nothing_out() -> None:
    assert box_mean(np.zeros((0, 4, 3), np.uint8), 2).shape == (0, 2, 3)
    empty = (np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    assert separable(noise_image(4, 4), empty, _identity(4)).shape == (0, 4, 3)
    assert isinstance(area_taps(0, 1, 1.0), Taps)
