"""Stored objects come back as they were, and damage is noticed."""

from __future__ import annotations

import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import objects_of
from nuclix.engine.segmentation.objects import Objects, concatenate
from nuclix.engine.segmentation.store import ObjectStore, StoredSlide, StoreWriter, open_store
from nuclix.engine.slide.tissue import TissueMask
from nuclix.testing.writer import blocks, header, objects
from rings import label_images

SLIDE = StoredSlide("key", replace(header(), provenance={"model": "m"}, mpp=0.25, shape=(9, 8)), {"counts": {"n": 1}})
TISSUE = TissueMask(np.random.default_rng(0).random((13, 21)) < 0.5, 16.25, 1.5)


def store(path: Path, parts: list[Objects], tissue: TissueMask | None = TISSUE) -> ObjectStore:
    writer = StoreWriter(path)
    for part in parts:
        writer.write(part)
    writer.commit(SLIDE, tissue)
    return ObjectStore(path)


def assert_same(found: Objects, expected: Objects) -> None:
    for item in fields(Objects):
        a, b = getattr(found, item.name), getattr(expected, item.name)
        if item.name == "measurements":
            assert list(a) == list(b)
            a, b = np.array(list(a.values())), np.array(list(b.values()))
        assert (a is None) == (b is None), item.name
        if a is None:
            continue
        assert a.dtype == b.dtype, item.name
        np.testing.assert_array_equal(a, b)


def test_everything_comes_back(tmp_path: Path) -> None:
    parts = blocks(objects(), 50)
    with store(tmp_path / "a.zip", parts) as found:
        assert found.slide == SLIDE
        assert found.tissue is not None
        np.testing.assert_array_equal(found.tissue.mask, TISSUE.mask)
        assert (found.tissue.downsample, found.tissue.area_mm2) == (16.25, 1.5)
        assert len(found) == len(objects())
        assert_same(concatenate(list(found.blocks())), objects())
        np.testing.assert_array_equal(np.concatenate(list(found.first())), objects().first)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@given(label_images(), st.sampled_from([1.0, 1 / 32, 0.3]), st.integers(0, 2**18))
def test_corners_of_any_kind_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, labels: NDArray[np.int32], unit: float, place: int
) -> None:
    exact = objects_of(labels, np.zeros(labels.shape, np.float32), Box(place, place // 2, *labels.shape), None)
    rng = np.random.default_rng(0)
    shifted = (exact.corners + unit * rng.integers(-3, 4, exact.corners.shape)).astype(np.float32)
    for corners in (exact.corners, shifted, exact.corners.astype(np.float64) + 0.1):
        given_objects = replace(exact, corners=corners)
        path = tmp_path_factory.mktemp("store") / "a.zip"
        with store(path, [given_objects]) as found:
            for block in found.blocks():
                assert_same(block, given_objects)


def test_a_slide_without_objects_or_tissue(tmp_path: Path) -> None:
    with store(tmp_path / "a.zip", [], None) as found:
        assert (len(found), list(found.blocks()), found.tissue) == (0, [], None)


def test_numpy_alone_reads_it(tmp_path: Path) -> None:
    store(tmp_path / "a.zip", [objects()]).close()
    with np.load(tmp_path / "a.zip") as content:
        np.testing.assert_array_equal(content["000000/first"], objects().first)


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    store(path, [objects()]).close()
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("000000/measurements.npy")
    middle = info.header_offset + info.compress_size // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with ObjectStore(path) as found, pytest.raises(DataError, match="run the slide again"):
        list(found.blocks())
    for content in (whole[: len(whole) // 2], b"", b"PK nonsense"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            ObjectStore(path)
        assert open_store(path, "key") is None


def test_only_a_store_of_the_same_key_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    assert open_store(path, "key") is None
    store(path, [objects()]).close()
    assert open_store(path, "another") is None
    found = open_store(path, "key")
    assert found is not None
    found.close()


def test_an_aborted_store_leaves_nothing(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.zip")
    writer.write(objects())
    writer.abort()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError):
        StoreWriter(tmp_path / "missing" / "a.zip")
