"""Outlines against shapely's union of pixel boxes: exact, valid, and in the promised order."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.ext.outlines import Outlines, label_outlines
from rings import gallery, label_images, polygons_of, whole

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u2"]
COLUMNS = ("labels", "first", "pixels", "rings", "shells", "offsets", "corners")


def assert_same(a: Outlines, b: Outlines) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype


def check_columns(outlines: Outlines, labels: NDArray[Any]) -> None:
    """Labels, order, first pixels and counts, from NumPy."""
    values, at, counts = np.unique(labels, return_index=True, return_counts=True)
    values, at, counts = values[values > 0], at[values > 0], counts[values > 0]
    order = np.argsort(at)
    np.testing.assert_array_equal(outlines.labels, values[order])
    np.testing.assert_array_equal(outlines.first, np.stack(np.unravel_index(at[order], labels.shape), axis=1))
    np.testing.assert_array_equal(outlines.pixels, counts[order])
    assert len(outlines) == len(values)
    assert outlines.rings[0] == outlines.offsets[0] == 0
    assert outlines.rings[-1] == len(outlines.shells) == len(outlines.offsets) - 1
    assert outlines.offsets[-1] == len(outlines.corners)


def check_rings(outlines: Outlines) -> None:
    """Rings turn at every corner, are not closed, touch themselves nowhere, and begin where they should."""
    for begin, end, shell in zip(outlines.offsets[:-1], outlines.offsets[1:], outlines.shells, strict=True):
        corners = outlines.corners[begin:end]
        steps = np.roll(corners, -1, axis=0) - corners
        assert len(corners) >= 4
        assert len(np.unique(corners, axis=0)) == len(corners)
        np.testing.assert_array_equal(steps[0::2, 0], 0)
        np.testing.assert_array_equal(steps[1::2, 1], 0)
        assert (np.abs(steps).sum(1) > 0).all()
        assert (steps[0, 1] > 0) == shell
        top = corners[corners[:, 0] == corners[:, 0].min()]
        west, east = np.sort(top[:, 1])[:2]
        assert corners[0].tolist() == [top[0, 0], west if shell else east]


def check(labels: NDArray[Any]) -> Outlines:
    outlines = label_outlines(labels)
    check_columns(outlines, labels)
    check_rings(outlines)
    for label, pixels, polygons in zip(outlines.labels, outlines.pixels, polygons_of(outlines), strict=True):
        parts, count = ndi.label(labels == label)
        assert len(polygons) == count
        geometry = whole(polygons)
        assert geometry.is_valid, shapely.is_valid_reason(geometry)
        assert geometry.area == pixels
        for polygon in polygons:
            row, col = (int(number) for number in polygon.exterior.coords[0][::-1])
            rows, cols = np.nonzero(parts == parts[row, col])
            assert (row, col) == (rows[0], cols[0])
            assert polygon.exterior.is_ccw
            assert not any(hole.is_ccw for hole in polygon.interiors)
            # As point sets: with the same area, nothing may stick out.
            assert polygon.equals(shapely.union_all(shapely.box(cols, rows, cols + 1, rows + 1)))
    return outlines


@pytest.mark.parametrize("name", gallery())
def test_gallery(name: str) -> None:
    check(gallery()[name])


@given(label_images())
def test_any_labels(labels: NDArray[np.int32]) -> None:
    check(labels)


@given(label_images(30), st.integers(1, 4))
def test_connected_labels_are_single_polygons(labels: NDArray[np.int32], size: int) -> None:
    parts, _ = ndi.label(ndi.grey_dilation(labels, (size, size)) > 1)
    outlines = check(parts)
    assert outlines.shells.sum() == len(outlines)


def test_one_pixel() -> None:
    labels = np.zeros((5, 6), np.uint8)
    labels[3, 4] = 7
    outlines = label_outlines(labels)
    assert outlines.corners.tolist() == [[3, 4], [3, 5], [4, 5], [4, 4]]
    assert outlines.labels.tolist() == [7]


def test_a_diagonal_touch_within_a_part_makes_a_hole_that_touches_the_shell() -> None:
    outlines = check(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]]))
    assert outlines.shells.tolist() == [True, False]
    assert outlines.corners[:6].tolist() == [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 0]]
    assert outlines.corners[6:].tolist() == [[1, 2], [1, 1], [2, 1], [2, 2]]


@pytest.mark.parametrize("quarter", range(4))
def test_a_diagonal_touch_in_every_direction(quarter: int) -> None:
    outlines = check(np.rot90(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]]), quarter).copy())
    assert outlines.shells.tolist() == [True, False]


def test_a_diagonal_touch_of_two_parts_makes_two_polygons() -> None:
    outlines = check(np.array([[1, 0], [0, 1]]))
    assert outlines.shells.tolist() == [True, True]


def test_a_diagonal_touch_is_resolved_by_what_comes_below() -> None:
    joined = np.array([[1, 0, 0], [1, 2, 1], [1, 2, 1], [1, 1, 1]])
    joined[0, 1] = 1  # touches (1, 2) at a corner; whether they are one part is decided three rows on
    assert check(joined).shells.sum() == 2
    apart = joined.copy()
    apart[3, 1] = 0
    assert check(apart).shells.sum() == 3


def test_holes_follow_their_own_shell() -> None:
    labels = np.ones((5, 11), np.int32)
    labels[:, 5] = 0
    labels[2, [1, 3, 7, 9]] = 0
    assert check(labels).shells.tolist() == [True, False, False, True, False, False]


@given(label_images(), st.tuples(*[st.integers(0, 9)] * 4), st.randoms(use_true_random=False))
def test_place_and_names_do_not_matter(labels: NDArray[np.int32], margins: tuple[int, ...], random: Any) -> None:
    names = np.array([0, *random.sample(range(1, 2**31), int(labels.max(initial=0)))])
    padded = np.pad(names[labels], (margins[:2], margins[2:]))
    plain, moved = label_outlines(labels), label_outlines(padded)
    np.testing.assert_array_equal(moved.labels, names[plain.labels])
    np.testing.assert_array_equal(moved.corners, plain.corners + np.array([margins[0], margins[2]]))
    np.testing.assert_array_equal(moved.rings, plain.rings)
    np.testing.assert_array_equal(moved.shells, plain.shells)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    labels = gallery()["nested islands, holes between"]
    labels = labels > 0 if dtype == "bool" else labels
    assert_same(label_outlines(labels.astype(dtype)), label_outlines(labels))


def test_every_order_and_read_only() -> None:
    rng = np.random.default_rng(3)
    big = rng.integers(0, 4, (60, 80)).astype(np.int32)
    view = big[5:51:2, 70:9:-3]
    expected = label_outlines(view.copy())
    unaligned = np.frombuffer(b"x" + view.tobytes(), np.uint8)[1:].view(np.int32).reshape(view.shape)
    fields = np.zeros(view.shape, [("a", "i1"), ("b", "i4")])
    fields["b"] = view
    for labels in (view, np.asfortranarray(view), unaligned, fields["b"], view[::-1].copy()[::-1]):
        before = labels.copy()
        labels.setflags(write=False)
        assert_same(label_outlines(labels), expected)
        np.testing.assert_array_equal(labels, before)
    assert_same(label_outlines(big[3:40, 7:60]), label_outlines(big[3:40, 7:60].copy()))


def test_large_labels() -> None:
    labels = np.array([[2**31 - 1, 2**31 - 1, 0, 2**31 - 2]], np.int64)
    assert label_outlines(labels.astype(np.int32)).labels.tolist() == [2**31 - 1, 2**31 - 2]
    assert label_outlines((labels * 2).astype(np.uint32)).labels.tolist() == [2**32 - 2, 2**32 - 4]
    assert label_outlines(np.array([[2**63 - 1, 1]])).labels.tolist() == [2**63 - 1, 1]


def test_more_than_65535_labels() -> None:
    labels = np.random.default_rng(2).permutation(300 * 300).reshape(300, 300) + 1
    outlines = label_outlines(labels)
    check_columns(outlines, labels)
    assert len(outlines.corners) == 4 * 300 * 300
    assert shapely.area(shapely.polygons(outlines.corners.reshape(-1, 4, 2))).tolist() == [1.0] * 90000


def test_an_image_of_more_than_2_to_the_31_pixels() -> None:
    labels = np.zeros((2**15 + 3, 2**16 + 5), np.uint8)  # pages that are only read cost no memory
    labels[-2:, -3:] = 9
    labels[5, 5] = 9
    outlines = label_outlines(labels)
    assert outlines.pixels.tolist() == [7]
    assert outlines.corners[-4:].tolist() == [[32769, 65538], [32769, 65541], [32771, 65541], [32771, 65538]]


@pytest.mark.shared
def test_real_nuclei(shared: Path) -> None:
    from PIL import Image

    for path in sorted((shared / "data" / "kumar16" / "labels").glob("*.png"))[:4]:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int32)
        outlines = label_outlines(labels)
        check_columns(outlines, labels)
        check_rings(outlines)
        geometries = [whole(polygons) for polygons in polygons_of(outlines)]
        assert shapely.is_valid(geometries).all()
        assert shapely.area(geometries).tolist() == outlines.pixels.tolist()


def test_two_threads_do_not_meet() -> None:
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 3, (200, 300)) for _ in range(2)]
    expected = [label_outlines(image) for image in images]
    found: list[list[Outlines]] = [[], []]

    def work(k: int) -> None:
        found[k] = [label_outlines(images[k]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        for outlines in found[k]:
            assert_same(outlines, expected[k])


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_labels_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="negative"):
        label_outlines(np.array([[0, 1, -1]], dtype))


def test_what_is_no_label_image_is_refused() -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        label_outlines(np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="shape"):
        label_outlines(np.zeros((3, 3, 3), np.int32))
    with pytest.raises(ValueError, match="too large"):
        label_outlines(np.broadcast_to(np.uint8(1), (1, 2**31)))
    with pytest.raises(ValueError, match="below"):
        label_outlines(np.full((2, 2), 2**63, np.uint64))
