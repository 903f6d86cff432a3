"""Stain vectors estimated from pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.slide.stains import angle_between, estimate_stain_vectors
from nuclix.ext.stains import EOSIN, HEMATOXYLIN

HE_VECTORS = np.array([HEMATOXYLIN, EOSIN])


def mixed(vectors: NDArray[np.float64], seed: int = 0, count: int = 20_000) -> NDArray[np.uint8]:
    """Return pixels of mixed stains with pure ones among them, and a third of background."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.4, (count, 2))
    amounts[: count // 10, 0] = 0.02
    amounts[count // 10 : count // 5, 1] = 0.02
    amounts[-count // 3 :] = 0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.clip(np.rint(256 * 10 ** -(amounts @ unit) - 1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("vectors", [HE_VECTORS, np.array([[0.55, 0.76, 0.35], [0.10, 0.90, 0.42]])])
def test_vectors_of_mixed_stains_are_found(vectors: NDArray[np.float64]) -> None:
    found = estimate_stain_vectors(mixed(vectors).reshape(100, -1, 3))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert angle_between(found[0], vectors[0]) < 4
    assert angle_between(found[1], vectors[1]) < 4


def test_order_of_pixels_and_background_do_not_matter() -> None:
    pixels = mixed(HE_VECTORS)
    white = np.full((5000, 3), 250, np.uint8)
    np.testing.assert_allclose(
        estimate_stain_vectors(np.concatenate([white, pixels[::-1]])), estimate_stain_vectors(pixels), atol=1e-9
    )


@pytest.mark.parametrize(
    "pixels", [np.full((50, 50, 3), 250, np.uint8), np.full((50, 50, 3), (150, 90, 160), np.uint8)]
)
def test_no_stain_is_an_error(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="stain vectors can't be estimated"):
        estimate_stain_vectors(pixels)
