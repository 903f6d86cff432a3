"""Components as nuclei: the contract, and an oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.engine import registry
from nuclix.plugins.postprocessors.components import Components
from nuclix.testing.postprocessor import check_postprocessor


def smooth_map(seed: int) -> NDArray[np.float32]:
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), 2.5)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)[None]


@pytest.mark.parametrize("processor", [Components(), Components(0.6, 12), Components(0.55, 1)], ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_conformance(processor: Components, seed: int) -> None:
    check_postprocessor(processor, smooth_map(seed))


def test_it_is_registered() -> None:
    assert registry.load(registry.POSTPROCESSORS, "components") is Components


maps = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0.0, 0.5, 0.75]))


@settings(max_examples=100, deadline=None)
@given(maps, st.integers(0, 5))
def test_labels_are_the_4_connected_components_that_are_large_enough(image: NDArray[np.float32], area: int) -> None:
    processor = Components(0.5, area)
    labels = processor.split(image[None], processor.foreground(image[None]))
    every, count = ndi.label(image > 0.5)
    expected, number = np.zeros_like(labels), 0
    for name in range(1, count + 1):
        if (every == name).sum() >= area:
            number += 1
            expected[every == name] = number
    assert np.array_equal(labels, expected)


def test_the_more_likely_class_is_taken_strictly() -> None:
    image = np.array([[[0.5, np.nextafter(np.float32(0.5), np.float32(1))]]], np.float32)
    assert Components().foreground(image).tolist() == [[False, True]]


@pytest.mark.parametrize("fields", [{"threshold": -0.1}, {"threshold": 1.0}, {"min_area": -1}])
def test_impossible_parameters_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Components(**fields)  # type: ignore[arg-type]
