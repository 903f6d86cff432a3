"""The probability split: the conformance suite, p1 in grey levels, argmax as components, and bad parameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage as ndi

from nuclix.plugins.postprocessors.probability import Probability
from nuclix.testing.postprocessor import check_postprocessor

FOUR = ndi.generate_binary_structure(2, 1)


def predicted(shape, seed):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return (1 / (1 + np.exp(-4 * smooth / smooth.std()))).astype(np.float32)[None]


@pytest.mark.parametrize(
    "processor",
    [
        Probability(),
        Probability(p1=0),
        Probability(p1=60, p2=0.3, connectivity=8, min_area=20),
        Probability(split_touching=False),
        Probability(split_touching=False, connectivity=8),
        Probability(split_touching=False, min_area=40),
    ],
    ids=str,
)
def test_conforms(processor):
    check_postprocessor(processor, predicted((150, 170), 1))
    check_postprocessor(processor, np.round(predicted((120, 90), 2) * 4) / 4)


def test_p1_counts_in_grey_levels():
    maps = np.array([[[200, 180, 210]]], np.float32) / 255
    mask = Probability().foreground(maps)
    assert Probability(p1=19.9).split(maps, mask).max() == 2
    assert Probability(p1=20.1).split(maps, mask).max() == 1


def test_a_faint_nucleus_has_the_dynamics_of_its_height_over_p2():
    maps = np.full((1, 1, 3), 0.52, np.float32)  # 5.1 grey levels over one half
    assert Probability(p1=6).split(maps, maps[0] > 0.5).max() == 0
    assert Probability(p1=5).split(maps, maps[0] > 0.5).max() == 1
    assert Probability(split_touching=False).split(maps, maps[0] > 0.5).max() == 1


@given(arrays(np.float32, (9, 11), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), st.integers(0, 5))
def test_argmax_alone_is_the_components_of_the_likelier_class(map_, min_area):
    """Against SciPy: the same partition but for small components, which are gone; labels in raster order."""
    processor = Probability(split_touching=False, min_area=min_area)
    found = processor.split(map_[None], processor.foreground(map_[None]))
    expected, _ = ndi.label(map_ > 1 - map_, FOUR)
    for label, area in zip(*np.unique(expected[expected > 0], return_counts=True), strict=True):
        if area < min_area:
            expected[expected == label] = 0
    kept = np.unique(expected[expected > 0])
    np.testing.assert_array_equal(found, np.searchsorted(kept, expected) * 1 + (expected > 0))


@given(arrays(np.float32, (9, 11), elements=st.sampled_from([0.0, 0.25, 0.6, 0.75, 1.0])))
def test_splitting_only_parts_what_argmax_found(map_):
    """With p1 = 0 the foreground is the same; every nucleus lies in one component; each component has one at least."""
    mask = Probability().foreground(map_[None])
    fine = Probability(p1=0).split(map_[None], mask)
    coarse = Probability(split_touching=False).split(map_[None], mask)
    np.testing.assert_array_equal(fine > 0, coarse > 0)
    pairs = np.unique(np.stack([fine[mask], coarse[mask]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_score_is_the_probability():
    maps = predicted((5, 6), 0)
    np.testing.assert_array_equal(Probability().score(maps), maps[0])


@pytest.mark.parametrize(
    "bad",
    [
        *({"p1": -1}, {"p1": float("inf")}, {"p2": -0.1}, {"p2": 1.0}, {"p2": float("nan")}),
        *({"connectivity": 6}, {"min_area": -1}),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Probability(**bad)
