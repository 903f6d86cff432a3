"""Splits by whole groups and by folds, and images of several scales in one data set."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.image_scales import nearest, read_scales, resampled
from nuclix.engine.training.splits import Fold, SplitOptions, deal_folds, read_folds, split_images

NAMES = tuple(f"tile{index:02}" for index in range(12))


def table(path: Path, column: str, values: dict[str, object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", column])
        writer.writerows(values.items())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index, name in enumerate(NAMES):
        pixels = np.full((20, 30, 3), 10 * index, np.uint8)
        labels = np.zeros((20, 30), np.uint8)
        labels[4:10, 5:9] = 1
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{name}.png")
    return tmp_path / "data"


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(2, 5))
def test_folds_keep_groups_whole_and_are_balanced(groups: list[int], count: int) -> None:
    group_of = {f"image{index}": f"group{group}" for index, group in enumerate(groups)}
    if len(set(groups)) < count:
        with pytest.raises(DataError, match="can't be split"):
            deal_folds(group_of, count)
        return
    fold_of = deal_folds(group_of, count)
    assert set(fold_of) == set(group_of) and set(fold_of.values()) == set(range(1, count + 1))
    assert len({(group, fold_of[name]) for name, group in group_of.items()}) == len(set(groups))
    sizes = Counter(fold_of.values())
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(groups).values())
    assert deal_folds(dict(reversed(group_of.items())), count) == fold_of  # the order of the files does not matter


def test_every_image_is_held_out_once_over_the_folds(folder: Path) -> None:
    table(folder / "groups.csv", "group", {name: index // 3 for index, name in enumerate(NAMES)})
    held = []
    for index in range(1, 4):
        dataset = load_dataset(folder, SplitOptions(fold=Fold(index, 3)))
        held += [item.name for item in dataset.validation]
        assert not {int(item.name[4:]) // 3 for item in dataset.validation} & {
            int(item.name[4:]) // 3 for item in dataset.train
        }
    assert sorted(held) == list(NAMES)


def test_hashed_split_takes_whole_groups(folder: Path) -> None:
    groups = {name: index // 4 for index, name in enumerate(NAMES)}
    split = split_images(folder, NAMES, SplitOptions(groups=table(folder.parent / "g.csv", "group", groups)))
    assert len({(group, split.parts[name]) for name, group in groups.items()}) == 3
    assert "group" in split.source


def test_a_table_that_tears_a_group_apart_is_refused(folder: Path) -> None:
    table(folder / "groups.csv", "group", {name: index // 2 for index, name in enumerate(NAMES)})
    torn = table(folder.parent / "s.csv", "split", {NAMES[0]: "train", NAMES[1]: "validation"})
    with pytest.raises(DataError, match=r"tile00 is in train and tile01 in validation, but both are of group 0"):
        load_dataset(folder, SplitOptions(torn))


def test_train_on_all_holds_nothing_out(folder: Path) -> None:
    dataset = load_dataset(folder, SplitOptions(train_on_all=True))
    assert len(dataset.train) == len(NAMES) and dataset.validation == ()


@pytest.mark.parametrize("text", ["1", "0/4", "5/4", "1/1", "a/b", "-1/4", "1/4/2", ""])
def test_a_bad_fold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fold"):
        Fold.parse(text)


def test_ways_to_split_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one of"):
        SplitOptions(tmp_path / "a.csv", fold=Fold(1, 2))
    with pytest.raises(UsageError, match="--fold I/K"):
        SplitOptions(folds=tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({name: 1 for name in NAMES[:-1]}, "tile11"),
        ({name: "x" for name in NAMES}, "whole numbers from 1"),
        ({name: 2 for name in NAMES}, "folds 1 to 2"),
    ],
)
def test_a_bad_table_of_folds_is_named(tmp_path: Path, values: dict[str, object], message: str) -> None:
    path = table(tmp_path / "folds.csv", "fold", values)
    with pytest.raises(DataError, match=rf"folds\.csv: .*{message}"):
        read_folds(path, NAMES, {name: name for name in NAMES}, 2)


def test_images_are_brought_to_one_scale(folder: Path) -> None:
    table(folder / "images.csv", "mpp", {name: 0.5 if name == NAMES[3] else 0.25 for name in NAMES})
    dataset = load_dataset(folder, SplitOptions(train_on_all=True), 0.25)
    shapes = {item.name: item.image.shape[:2] for item in dataset.train}
    assert shapes[NAMES[3]] == (40, 60) and shapes[NAMES[0]] == (20, 30)
    enlarged = next(item for item in dataset.train if item.name == NAMES[3])
    assert enlarged.image.flags.writeable  # torch warns of arrays that are not
    assert (enlarged.labels == dataset.train[0].labels.repeat(2, 0).repeat(2, 1)).all()
    assert load_dataset(folder, SplitOptions(train_on_all=True)).train[3].image.shape == (20, 30, 3)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "250", "nan"])
def test_a_bad_scale_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"s\.csv: .*mpp.* tile00"):
        read_scales(table(tmp_path / "s.csv", "mpp", {NAMES[0]: text}), NAMES[:1])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.2, 5))
def test_labels_and_image_stay_registered(height: int, width: int, factor: float) -> None:
    labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pixels = np.repeat((labels % 251).astype(np.uint8)[..., None], 3, 2)
    item = resampled(Annotated("a", pixels, labels), factor, 1.0)
    assert item.labels.shape == item.image.shape[:2]
    assert set(np.unique(item.labels)) <= set(np.unique(labels))


def plain_nearest(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    out = np.zeros(shape, np.int32)
    for row in range(shape[0]):
        for col in range(shape[1]):
            out[row, col] = labels[
                (2 * row + 1) * len(labels) // (2 * shape[0]), (2 * col + 1) * labels.shape[1] // (2 * shape[1])
            ]
    return out


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30))
def test_each_pixel_has_the_label_under_its_centre(height: int, width: int, rows: int, cols: int) -> None:
    labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    assert (nearest(labels, (rows, cols)) == plain_nearest(labels, (rows, cols))).all()
