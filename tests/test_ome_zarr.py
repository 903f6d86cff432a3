"""OME-Zarr: pyramids of Zarr 2 and 3 as slides, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from end_to_end import blobs, make_model
from nuclix.engine.batch.discover import discover
from nuclix.engine.cli.main import main
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.identity import slide_state
from nuclix.engine.slide.open import fingerprint, open_slide
from slides import padded, reduced, write_slide


def write_zarr(
    path: Path, levels: Sequence[NDArray[Any]], version: int = 2, axes: str = "tczyx", unit: str = "micrometer",
    mpp: float = 0.25,
) -> Path:  # fmt: skip
    """Write levels of (height, width, channels) as an OME-Zarr."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    datasets = []
    for number, level in enumerate(levels):
        planes = np.moveaxis(level, 2, 0) if axes.index("c") < axes.index("y") else level
        planes = np.expand_dims(planes, tuple(axes.index(axis) for axis in axes if axis not in "cyx"))
        chunks = tuple(100 if axis in "yx" else length for axis, length in zip(axes, planes.shape, strict=True))
        array = group.create_array(str(number), shape=planes.shape, chunks=chunks, dtype=planes.dtype)
        array[:] = planes
        scale = [mpp * levels[0].shape[0] / level.shape[0] if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    named = [{"name": axis, **({"type": "space", "unit": unit} if axis in "zyx" else {})} for axis in axes]
    scales = {"multiscales": [{"axes": named, "datasets": datasets, "version": "0.4" if version == 2 else "0.5"}]}
    group.attrs.update(scales if version == 2 else {"ome": scales})
    return path


@pytest.mark.parametrize(("version", "axes"), [(2, "tczyx"), (3, "tczyx"), (2, "yxc"), (3, "cyx")])
def test_boxes_are_those_of_the_image(version: int, axes: str, tmp_path: Path) -> None:
    image = blobs(1, 600, 540)
    levels = [image, reduced(image, 4)]
    path = write_zarr(tmp_path / "a.ome.zarr", levels, version, axes)
    reader = open_slide(path)
    assert type(reader).__name__ == "OmeZarrReader"
    assert reader.info.scale is not None and reader.info.scale.mpp == pytest.approx(0.25)
    assert reader.info.scale_source == "OME-Zarr"
    assert [(level.height, level.width) for level in reader.info.levels] == [(600, 540), (150, 135)]
    for level, box in (
        (0, Box(0, 0, 600, 540)),
        (0, Box(-5, 500, 80, 90)),
        (0, Box(505, 505, 20, 20)),
        (1, Box(140, 9, 30, 40)),
    ):
        np.testing.assert_array_equal(reader.read(level, box), padded(levels[level], box))
    assert reader.read(0, Box(5, 5, 0, 9)).shape == (0, 9, 3)
    reader.close()
    with pytest.raises(ValueError, match="after close"):
        reader.read(0, Box(0, 0, 1, 1))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    image = blobs(2, 64, 64).astype(np.uint16) * 257
    reader = open_slide(write_zarr(tmp_path / "a.zarr", [image]))
    np.testing.assert_array_equal(reader.read(0, Box(0, 0, 64, 64)), blobs(2, 64, 64))


def test_a_folder_is_one_slide_with_an_identity(tmp_path: Path) -> None:
    image = blobs(3, 200, 200)
    path = write_zarr(tmp_path / "in" / "a.ome.zarr", [image])
    (job,) = discover([str(tmp_path / "in")], tmp_path / "out").jobs
    assert (job.path, str(job.name)) == (path, "a")
    (named,) = discover([str(path)], tmp_path / "out").jobs
    assert named.path == path
    mark, state = fingerprint(path), slide_state(path)
    chunk = next(file for file in sorted((path / "0").rglob("*")) if file.is_file() and not file.name.startswith("."))
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert fingerprint(path) != mark
    assert slide_state(path) != state


def test_the_engine_finds_the_nuclei_of_the_tiff(tmp_path: Path) -> None:
    image = blobs(4, 200, 180)
    write_zarr(tmp_path / "in" / "zarr.ome.zarr", [image, reduced(image, 4)])
    write_slide(tmp_path / "in" / "tiff.tif", image, mpp=0.25, compression="none")
    model = make_model(tmp_path / "model.pt")
    common = ["run", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    assert main([*common, "--quiet", "--no-tissue"]) == 0
    one, other = (
        [
            item["geometry"]
            for item in json.loads((tmp_path / "out" / f"{name}.geojson").read_bytes())["features"]
        ]
        for name in ("zarr", "tiff")
    )  # fmt: skip
    assert one == other and len(one) > 10


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "text"),
    [
        ((64, 64, 4), "cyx", np.uint8, "has 4 channels, not red, green and blue"),
        ((64, 64, 1), "cyx", np.uint8, "has 1 channel, not red"),
        ((64, 64, 3), "cyx", np.float32, "pixels of float32"),
    ],
)
def test_what_is_no_colour_image_is_refused(
    shape: tuple[int, ...], axes: str, dtype: Any, text: str, tmp_path: Path
) -> None:
    path = write_zarr(tmp_path / "a.zarr", [np.zeros(shape, dtype)], axes=axes)
    with pytest.raises(SlideError, match=text) as error:
        open_slide(path)
    assert str(error.value).startswith(str(path))


def test_damage_is_named(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", [blobs(5, 200, 200)])
    for chunk in (path / "0").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith("."):
            chunk.write_bytes(b"damaged")
    reader = open_slide(path)
    with pytest.raises(SlideError, match="level 0, x 0, y 0: does not decode"):
        reader.read(0, Box(0, 0, 50, 50))
    (path / "0" / ".zarray").write_text("{}")
    with pytest.raises(SlideError, match="damaged or not a whole OME-Zarr"):
        open_slide(path)


def test_a_scale_without_unit_is_none_and_a_plain_folder_is_no_slide(tmp_path: Path) -> None:
    assert open_slide(write_zarr(tmp_path / "a.zarr", [blobs(6, 64, 64)], unit="pixel")).info.scale is None
    (tmp_path / "plain").mkdir()
    with pytest.raises(SlideError, match="is a folder, not a slide"):
        fingerprint(tmp_path / "plain")
