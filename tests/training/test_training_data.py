"""Folders of annotated images: what fits is read, what does not is named; splits never leak."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blobs import blobs, write_folder
from nuclix.engine.errors import DataError
from nuclix.engine.training.dataset import Dataset, load_dataset
from nuclix.engine.training.splits import SplitOptions, held_out, read_split

NAMES = [f"image{number}" for number in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", [blobs(name, (24, 20), seed) for seed, name in enumerate(NAMES)])


def names(dataset: Dataset) -> tuple[set[str], set[str]]:
    return {item.name for item in dataset.train}, {item.name for item in dataset.validation}


def write_split(path: Path, parts: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "group", "split"])
        writer.writerows([name, "g", part] for name, part in parts.items())
    return path


def test_images_and_labels_come_back_as_they_were_written(folder: Path) -> None:
    dataset = load_dataset(folder)
    found = {item.name: item for item in (*dataset.train, *dataset.validation)}
    assert sorted(found) == sorted(NAMES)
    for seed, name in enumerate(NAMES):
        expected = blobs(name, (24, 20), seed)
        assert np.array_equal(found[name].image, expected.image)
        assert np.array_equal(found[name].labels, expected.labels)
        assert found[name].labels.dtype == np.int32


def test_without_a_split_the_hash_of_the_name_decides(folder: Path) -> None:
    dataset = load_dataset(folder)
    train, validation = names(dataset)
    assert validation == {name for name in NAMES if held_out(name)}
    assert train == set(NAMES) - validation
    assert "hash" in dataset.split


def test_about_one_in_five_is_held_out() -> None:
    share = np.mean([held_out(f"name {number}") for number in range(5000)])
    assert share == pytest.approx(0.2, abs=0.02)


def test_a_split_file_decides_and_may_leave_images_out(folder: Path, tmp_path: Path) -> None:
    parts = {"image0": "validation", "image1": "train", "image2": "train"}
    dataset = load_dataset(folder, SplitOptions(write_split(tmp_path / "my.csv", parts)))
    assert names(dataset) == ({"image1", "image2"}, {"image0"})
    assert dataset.split == "my.csv"


def test_a_split_in_the_folder_counts_more_than_a_shipped_one(folder: Path, tmp_path: Path) -> None:
    shipped = write_split(tmp_path / "known.csv", {name: "train" for name in NAMES[1:]} | {NAMES[0]: "validation"})
    assert names(load_dataset(folder, SplitOptions(shipped=(shipped,))))[1] == {NAMES[0]}
    write_split(folder / "split.csv", {name: "train" for name in NAMES[1:]} | {NAMES[5]: "validation"})
    assert names(load_dataset(folder, SplitOptions(shipped=(shipped,))))[1] == {NAMES[5]}


def test_a_shipped_split_of_other_images_is_not_used(folder: Path, tmp_path: Path) -> None:
    shipped = write_split(tmp_path / "known.csv", {name: "train" for name in NAMES[1:]} | {"other": "validation"})
    assert "hash" in load_dataset(folder, SplitOptions(shipped=(shipped,))).split


def break_nothing_there(folder: Path) -> None:
    (folder / "images").rename(folder / "pictures")


def break_no_label(folder: Path) -> None:
    (folder / "labels" / "image3.png").unlink()


def break_no_image(folder: Path) -> None:
    (folder / "images" / "image3.png").unlink()


def break_size(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 21), np.uint16)).save(folder / "labels" / "image3.png")


def break_colour_labels(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(folder / "labels" / "image3.png")


def break_image_bytes(folder: Path) -> None:
    (folder / "images" / "image3.png").write_bytes(b"not a PNG")


def break_truncated(folder: Path) -> None:
    path = folder / "images" / "image3.png"
    path.write_bytes(path.read_bytes()[:200])


def break_odd_file(folder: Path) -> None:
    (folder / "images" / "image3.doc").write_text("letter")


def break_doubled(folder: Path) -> None:
    Image.fromarray(blobs("x", (24, 20)).image).save(folder / "images" / "image3.tif")


def break_empty(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_nothing_there, "images: no such folder"),
        (break_no_label, "image3.png: has no label image"),
        (break_no_image, "image3.png: has no image"),
        (break_size, "image3.png: is 21 x 24 px but image3.png is 20 x 24 px"),
        (break_colour_labels, "image3.png is a colour image of 3 channels"),
        (break_image_bytes, "image3.png: can't be read"),
        (break_truncated, "image3.png: can't be read"),
        (break_odd_file, "image3.doc: not one of"),
        (break_doubled, "image3.*: has the same name"),
        (break_empty, "images: is empty"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        load_dataset(folder)


def test_hidden_files_are_not_looked_at(folder: Path) -> None:
    (folder / "images" / ".DS_Store").write_bytes(b"x")
    load_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns"),
        ("image,part\na,train\n", "needs the columns"),
        ("image,split\na,test\n", "line 2: split must be one of"),
        ("image,split\na,train\n,train\n", "line 3"),
    ],
)
def test_a_bad_split_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(path)


def test_a_split_that_names_other_images_or_leaves_a_part_empty_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stranger"):
        load_dataset(folder, SplitOptions(write_split(tmp_path / "a.csv", {"stranger": "train"})))
    with pytest.raises(DataError, match="no image for validation"):
        load_dataset(folder, SplitOptions(write_split(tmp_path / "b.csv", {"image0": "train"})))
    with pytest.raises(DataError, match=r"absent\.csv"):
        load_dataset(folder, SplitOptions(tmp_path / "absent.csv"))


@pytest.mark.shared
def test_kumar16_holds_one_image_an_organ_for_validation(shared: Path) -> None:
    split = Path(__file__).parents[2] / "plugins" / "recipes" / "kumar16.csv"
    dataset = load_dataset(shared / "data" / "kumar16", SplitOptions(shipped=(split,)), 0.25)
    assert len(dataset.train) == 12 and len(dataset.validation) == 4
    with split.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["group"] for row in rows if row["split"] == "validation") == [
        "breast",
        "kidney",
        "liver",
        "prostate",
    ]
