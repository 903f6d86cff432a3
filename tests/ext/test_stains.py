"""Stain statistics against NumPy, and QuPath's check pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nuclix.ext.outlines import label_outlines
from nuclix.ext.stains import EOSIN, HEMATOXYLIN, optical_density, stain_inverse, stain_statistics
from rings import label_images

STATISTICS = ("mean", "median", "min", "max", "std")


def plain(labels: NDArray[Any], rgb: NDArray[np.uint8], inverse: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    density = np.maximum(0, -np.log10(np.maximum(rgb.astype(np.float64), 1) / 255))
    terms = density[..., :, None] * inverse
    stains = ((terms[..., 0, :] + terms[..., 1, :]) + terms[..., 2, :]).astype(np.float32).astype(np.float64)
    order = label_outlines(labels).labels
    values = [stains[labels == label] for label in order]
    return {
        "mean": np.array([v.mean(0) for v in values]),
        "median": np.array([np.median(v, axis=0) for v in values]),
        "min": np.array([v.min(0) for v in values]),
        "max": np.array([v.max(0) for v in values]),
        "std": np.array([v.std(0, ddof=1) if len(v) > 1 else np.zeros(2) for v in values]),
    }


def check(labels: NDArray[Any], rgb: NDArray[np.uint8], inverse: NDArray[np.float64] | None = None) -> None:
    found = stain_statistics(labels, rgb, inverse)
    expected = plain(labels, rgb, stain_inverse() if inverse is None else inverse)
    for name in STATISTICS:
        values = getattr(found, name)
        assert values.dtype == np.float64
        if name in ("min", "max", "median"):
            np.testing.assert_array_equal(values, expected[name].reshape(-1, 2), err_msg=name)
        else:
            np.testing.assert_allclose(values, expected[name].reshape(-1, 2), rtol=1e-12, atol=1e-13, err_msg=name)


def test_the_check_pixel() -> None:
    found = stain_statistics(np.ones((1, 1), np.uint8), np.array([[[150, 90, 160]]], np.uint8))
    np.testing.assert_allclose(found.mean, [[0.28517, 0.27857]], atol=5e-6)
    for name in ("median", "min", "max"):
        np.testing.assert_array_equal(getattr(found, name), found.mean)
    assert found.std.tolist() == [[0.0, 0.0]]


def test_qupaths_inverse() -> None:
    expected = [[1.838331, -1.373321], [0.033906, 0.771885], [-0.759830, 1.214963]]
    np.testing.assert_allclose(stain_inverse(), expected, atol=1e-6)
    np.testing.assert_allclose(stain_inverse(3 * np.array(HEMATOXYLIN), EOSIN), stain_inverse(), rtol=1e-12)


@given(st.data(), label_images(12))
def test_any_labels_and_pixels(data: st.DataObject, labels: NDArray[np.int32]) -> None:
    top = data.draw(st.sampled_from([3, 255]))  # few levels: ties
    rgb = data.draw(hnp.arrays(np.uint8, (*labels.shape, 3), elements=st.integers(0, top)))
    check(labels, rgb)


def test_large_objects_and_other_stains() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (200, 300)).repeat(3, 1)
    rgb = rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    check(labels, rgb)
    check(labels, rgb, stain_inverse((0.5, 0.7, 0.4), (0.1, 0.9, 0.2)))
    check(labels, np.sort(rgb, axis=1))
    check(labels, np.full_like(rgb, 200))


@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i4", "u4", "i8"])
def test_every_dtype_and_order(dtype: str) -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, (20, 30)).astype(dtype)
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).transpose(1, 2, 0)
    for pixels in (rgb, planes, np.asfortranarray(rgb), rgb[:, ::-1][:, ::-1]):
        before = pixels.copy()
        check(labels, pixels)
        np.testing.assert_array_equal(pixels, before)
    rgb.setflags(write=False)
    check(labels[::-1, ::-1], rgb[::-1, ::-1])


@given(label_images(10), st.tuples(*[st.integers(0, 70)] * 4))
def test_place_does_not_matter(labels: NDArray[np.int32], margins: tuple[int, ...]) -> None:
    rgb = np.random.default_rng(7).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    around = (margins[:2], margins[2:])
    found = stain_statistics(labels, rgb)
    moved = stain_statistics(np.pad(labels, around), np.pad(rgb, (*around, (0, 0))))
    for name in STATISTICS:
        np.testing.assert_array_equal(getattr(moved, name), getattr(found, name))


def test_nothing() -> None:
    for shape in ((0, 0), (0, 4), (4, 0), (3, 3)):
        found = stain_statistics(np.zeros(shape, np.int32), np.zeros((*shape, 3), np.uint8))
        assert all(getattr(found, name).shape == (0, 2) for name in STATISTICS)


def test_density_is_never_negative() -> None:
    density = optical_density()
    assert density[0] == density[1] == pytest.approx(np.log10(255))
    assert density[255] == 0
    assert (np.diff(density) <= 0).all()


def test_refuses() -> None:
    labels, rgb = np.ones((2, 3), np.int32), np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(TypeError, match="uint8"):
        stain_statistics(labels, rgb.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        stain_statistics(labels, rgb[:1])
    with pytest.raises(ValueError, match="shape"):
        stain_statistics(labels, rgb[:, :, :2])
    with pytest.raises(ValueError, match="matrix"):
        stain_statistics(labels, rgb, np.eye(3))
    with pytest.raises(ValueError, match="same way"):
        stain_inverse(HEMATOXYLIN, HEMATOXYLIN)
    with pytest.raises(ValueError, match="zero"):
        stain_inverse((0, 0, 0), EOSIN)
    with pytest.raises(ValueError, match="three finite"):
        stain_inverse((0, 1), EOSIN)  # type: ignore[arg-type]
