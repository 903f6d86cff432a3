"""Columns of objects: taking, joining and ordering lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import objects_of
from nuclix.engine.segmentation.objects import ORDER_CELL, Objects, canonical_order, concatenate, take
from rings import label_images, polygons_of


def some(labels: NDArray[np.int32]) -> Objects:
    return objects_of(labels, np.full(labels.shape, 0.5, np.float32), Box(0, 0, *labels.shape), None)


def rows(objects: Objects) -> list[tuple[object, ...]]:
    """Each object by itself, as plain Python."""
    found = []
    for index, polygons in enumerate(polygons_of(objects)):
        values = tuple(column[index] for column in objects.measurements.values())
        rings = tuple(polygon.wkt for polygon in polygons)
        found.append((*objects.first[index], objects.pixels[index], objects.classes[index], rings, values))
    return found


def arrays(objects: Objects) -> list[NDArray[np.generic]]:
    names = ("first", "pixels", "rings", "shells", "offsets", "corners", "classes")
    return [*(getattr(objects, name) for name in names), *objects.measurements.values()]


@given(label_images(), st.data())
def test_taking_picks_rows(labels: NDArray[np.int32], data: st.DataObject) -> None:
    objects = some(labels)
    index = data.draw(st.lists(st.integers(0, len(objects) - 1), max_size=8) if len(objects) else st.just([]))
    taken = take(objects, np.array(index, np.int64))
    everything = rows(objects)
    assert rows(taken) == [everything[i] for i in index]
    for a, b in zip(arrays(taken), arrays(objects), strict=True):
        assert a.dtype == b.dtype
        assert not np.shares_memory(a, b)


@given(st.lists(label_images(6), min_size=1, max_size=4))
def test_joining_lists_all_rows(images: list[NDArray[np.int32]]) -> None:
    parts = [some(labels) for labels in images]
    joined = concatenate(parts)
    assert rows(joined) == [row for part in parts for row in rows(part)]
    assert [a.dtype for a in arrays(joined)] == [a.dtype for a in arrays(parts[0])]
    assert len(joined) == sum(map(len, parts))


@given(label_images(), st.randoms(use_true_random=False))
def test_cut_shuffled_and_joined_objects_are_put_in_order_again(labels: NDArray[np.int32], random: object) -> None:
    objects = some(labels)
    index = np.arange(len(objects))
    random.shuffle(index)  # type: ignore[attr-defined]
    cut = len(objects) // 2
    shuffled = concatenate([take(objects, index[:cut]), take(objects, index[cut:])])
    again = take(shuffled, canonical_order(shuffled.first))
    for a, b in zip(arrays(again), arrays(objects), strict=True):
        np.testing.assert_array_equal(a, b)


def test_order_within_a_cell_is_by_row_then_column_and_stable() -> None:
    first = np.array([[3, 1], [2, 9], [3, 0], [2, 9], [1, ORDER_CELL - 1], [ORDER_CELL - 1, 0]])
    assert canonical_order(first).tolist() == [4, 1, 3, 2, 0, 5]


@pytest.mark.parametrize("shape", [(32, 32), (5, 64), (64, 3)])
def test_consecutive_cells_are_neighbours(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation(np.indices(shape).reshape(2, -1).T)
    first = cells * ORDER_CELL + rng.integers(0, ORDER_CELL, cells.shape)
    order = canonical_order(first)
    assert sorted(order) == list(range(len(cells)))
    steps = np.abs(np.diff(cells[order], axis=0)).sum(1)
    assert np.mean(steps == 1) > 0.6  # the curve leaves an oblong slide, and comes back nearby
    if shape[0] == shape[1]:
        assert (steps == 1).all()


def test_every_coordinate_has_a_place() -> None:
    first = np.array([[-(2**40), 0], [2**40, 2**40], [0, 0], [-1, -1], [2**31 - 1, 2**31 - 1]])
    assert sorted(canonical_order(first)) == list(range(5))


def test_no_parts_can_not_be_joined() -> None:
    with pytest.raises(ValueError, match="nothing"):
        concatenate([])


def test_different_measurements_can_not_be_joined() -> None:
    labels = np.ones((2, 2), np.int32)
    scores = np.zeros((2, 2), np.float32)
    known = objects_of(labels, scores, Box(0, 0, 2, 2), 0.25)
    unknown = objects_of(labels, scores, Box(0, 0, 2, 2), None)
    with pytest.raises(ValueError, match="measurements"):
        concatenate([known, unknown])
