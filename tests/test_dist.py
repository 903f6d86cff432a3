"""The DIST split: the conformance suite, eq. 4 on hand-made maps, and bad parameters."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage as ndi

from nuclix.plugins.postprocessors.dist import Dist
from nuclix.testing.postprocessor import check_postprocessor


def predicted(shape, seed):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    return (smooth / smooth.std() * 3).astype(np.float32)[None]


@pytest.mark.parametrize(
    "processor",
    [Dist(), Dist(p1=0.5), Dist(p1=1, p2=1.5, connectivity=8), Dist(min_area=30), Dist(p2=-20)],
    ids=str,
)
def test_conforms(processor):
    check_postprocessor(processor, predicted((150, 170), 1))


def test_conforms_with_ties():
    check_postprocessor(Dist(), np.round(predicted((120, 90), 2)))


@dataclass(frozen=True)
class Drifting(Dist):
    """Splits by where the array was cut: each row of the array is a nucleus of its own."""

    def split(self, maps, mask):
        rows = np.broadcast_to(np.arange(mask.shape[0])[:, None] // 40, mask.shape)
        return np.unique(super().split(maps, mask) * 1000 + rows * mask, return_inverse=True)[1].astype(np.int32)


@dataclass(frozen=True)
class Relative(Dist):
    """Thresholds at a share of the array's maximum."""

    def foreground(self, maps):
        return maps[0] > maps.max(initial=0) / 3


@dataclass(frozen=True)
class Greedy(Dist):
    """Labels pixels outside the foreground."""

    def split(self, maps, mask):
        return super().split(maps, mask | ndi.binary_dilation(mask))


@pytest.mark.parametrize("bad", [Drifting(), Relative(), Greedy()], ids=str)
def test_the_suite_catches_plugins_that_break_the_promise(bad):
    with pytest.raises(AssertionError):
        check_postprocessor(bad, predicted((150, 170), 1))


def test_two_nuclei_that_touch():
    maps = np.array([[[1, 2, 3, 2, 1.5, 2.5, 3.5, 1, 0, 1]]], np.float32)
    mask = Dist(p1=0).foreground(maps)
    np.testing.assert_array_equal(Dist(p1=0).split(maps, mask), [[1, 1, 1, 1, 2, 2, 2, 2, 0, 3]])
    np.testing.assert_array_equal(Dist().split(maps, mask), [[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])
    np.testing.assert_array_equal(Dist(p1=1.5).split(maps, mask), [[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]])


def test_dynamics_end_at_p2():
    maps = np.array([[[0, 2, 0]]], np.float32)
    assert Dist(p1=1.5, p2=0.5).split(maps, maps[0] > 0.5).max() == 0
    assert Dist(p1=1.49, p2=0.5).split(maps, maps[0] > 0.5).max() == 1


def test_small_nuclei_are_dropped_and_numbers_closed():
    maps = np.array([[[1, 0, 1, 1, 0, 1, 0, 1, 1]]], np.float32)
    mask = Dist().foreground(maps)
    np.testing.assert_array_equal(Dist(p1=0, min_area=2).split(maps, mask), [[0, 0, 1, 1, 0, 0, 0, 2, 2]])


def test_the_mask_decides_where_clumps_are():
    maps = np.array([[[3, 2, 3]]], np.float32)
    np.testing.assert_array_equal(Dist().split(maps, np.array([[True, False, True]])), [[1, 0, 2]])


def test_score_is_the_distance_cut_to_one():
    maps = np.array([[[-1, 0, 0.25, 1, 9]]], np.float32)
    np.testing.assert_array_equal(Dist().score(maps), [[0, 0, 0.25, 1, 1]])


@pytest.mark.parametrize(
    "bad",
    [
        {"p1": -1},
        {"p1": float("nan")},
        {"p1": float("inf")},
        {"p2": float("nan")},
        {"connectivity": 6},
        {"min_area": -1},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Dist(**bad)
