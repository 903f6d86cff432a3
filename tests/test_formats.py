"""Slides of every format through the whole engine: the same picture gives the same nuclei."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from end_to_end import blobs, make_model, make_slide, nuclix_here, run_options
from openslide_formats import write_bif, write_dicom, write_philips, write_trestle, write_vmu
from slides import Image, damage_tile, lose_tile, write_slide
from vendors import write_czi, write_ndpi, write_ome, write_scn, write_vms

SIZE = 512  # a multiple of what the restart markers of Hamamatsu's JPEGs need
OVERLAP = 32  # tiles of 128 px that share so many with their neighbours cover `SIZE` without remainder


def run(folder: Path, *slides: Path, options: tuple[object, ...] = ()) -> tuple[int, str]:
    """Run the command line on slides; return its exit code and what it said."""
    model = folder / "red.pt"
    if not model.exists():
        make_model(model)
    end = nuclix_here("run", *slides, *run_options(folder / "out", model), *options)
    return end.code, end.said + end.errors


def record_of(folder: Path, slide: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "out" / f"{slide.stem}.json").read_text())
    return record


def outlines_of(folder: Path, slide: Path) -> list[Any]:
    """Return the nuclei's rings; identifiers depend on the file's bytes."""
    found = json.loads((folder / "out" / f"{slide.stem}.geojson").read_text())
    return [feature["geometry"]["coordinates"] for feature in found["features"]]


def test_damage_is_tolerated_on_request_and_recorded(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    damage_tile(slide, 0, 0, b"\0")  # uncompressed: any bytes are pixels
    lose_tile(slide, 0, 4)
    code, _ = run(tmp_path, slide)
    assert code == 0
    record = record_of(tmp_path, slide)
    assert record["slide"]["damage"] == {"missing": 1, "undecodable": 0}
    assert record["warnings"][0] == "tiles without data in the file, shown as background: 1"
    assert record["slide"]["mpp_source"] == "vendor metadata"
    assert record["slide"]["reader"] == "TiffSlideReader"


def test_an_undecodable_tile_fails_the_slide_unless_tolerated(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.svs", blobs(0, SIZE, SIZE))
    damage_tile(slide, 0, 5)
    code, said = run(tmp_path, slide)
    assert code == 1
    assert "level 0, tile in row 1, column 1 is cut short" in said
    code, said = run(tmp_path, slide, options=("--tolerate-damage", 1))
    assert code == 0, said
    record = record_of(tmp_path, slide)
    assert record["slide"]["damage"] == {"missing": 0, "undecodable": 1}
    assert "--tolerate-damage: 1" in record["warnings"][0]


def test_a_named_reader_is_used(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    assert run(tmp_path, slide)[0] == 0
    nuclei = outlines_of(tmp_path, slide)
    assert len(nuclei) > 20
    shutil.rmtree(tmp_path / "out")  # stored objects would be written again, whatever the reader
    assert run(tmp_path, slide, options=("--reader", "openslide"))[0] == 0
    assert record_of(tmp_path, slide)["slide"]["reader"] == "OpenSlideReader"
    assert outlines_of(tmp_path, slide) == nuclei
    code, said = run(tmp_path, slide, options=("--reader", "opensilde", "--no-tissue", "--recompute"))
    assert code != 0
    assert "did you mean 'openslide'?" in said


def tiff(path: Path, image: Image, **options: Any) -> Path:
    """Write a TIFF with a scale of 0.25 um/px."""
    tifffile.imwrite(path, image, resolution=(40000, 40000), resolutionunit="centimeter", **options)
    return path


def picture(path: Path, image: Image) -> Path:
    """Write a plain image without loss."""
    PIL.Image.fromarray(image).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def planes(image: Image) -> Image:
    return np.ascontiguousarray(np.moveaxis(image, 2, 0))


def tiff_of_imagej(path: Path, image: Image) -> Path:
    tifffile.imwrite(path, image, imagej=True, photometric="rgb", resolution=(4.0, 4.0), metadata={"unit": "micron"})
    return path


WEBP = {"lossless": True}
TILED: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128)}
LOSSLESS: dict[str, Callable[[Path, Image], Path]] = {
    "pyramid.svs": lambda path, image: write_slide(path, image, compression="none"),
    "jpeg2000.svs": lambda path, image: write_slide(path, image, compression="jpeg2000"),
    "strips.tif": lambda path, image: tiff(path, image, photometric="rgb", rowsperstrip=16),
    "one_strip.tif": lambda path, image: tiff(path, image, photometric="rgb"),
    "big.btf": lambda path, image: tiff(path, image, bigtiff=True, byteorder=">", compression="lzw", **TILED),
    "zstd.tif": lambda path, image: tiff(path, image, compression="zstd", **TILED),
    "tiff_webp.tif": lambda path, image: tiff(
        path, image, compression="webp", compressionargs={"lossless": True}, **TILED
    ),
    "planar.tif": lambda path, image: tiff(path, planes(image), planarconfig="separate", **TILED),
    "deep.tif": lambda path, image: tiff(path, image.astype(np.uint16) * 257, **TILED),
    "alpha.tif": lambda path, image: tiff(
        path, np.dstack([image, np.full_like(image[..., :1], 255)]), extrasamples=["unassalpha"], **TILED
    ),
    "imagej.tif": tiff_of_imagej,
    "ome_rgb.tif": lambda path, image: write_ome(path, image, "interleaved", (1, 2, 4)),
    "ome_planes.tif": lambda path, image: write_ome(path, image, "planes", (1, 2, 4)),
    "ome_pages.tif": lambda path, image: write_ome(path, image, "pages", (1, 2, 4)),
    "dicom": lambda path, image: write_dicom(path, image, 0.25),
    "philips.tiff": lambda path, image: write_philips(path, image, 0.25),
    "ventana.bif": lambda path, image: write_bif(path, image, 0.25, OVERLAP),
    "trestle.tif": lambda path, image: write_trestle(path, image, 0.25, OVERLAP),
    "vmu.vmu": lambda path, image: write_vmu(path, image, 0.25),
    "zeiss.czi": lambda path, image: write_czi(path, [(200, -100, image)]),
    "png.png": picture,
    "bmp.bmp": picture,
    "webp.webp": picture,
}
LOSSY: dict[str, Callable[[Path, Image], Path]] = {
    "jpeg.svs": write_slide,
    "hamamatsu.ndpi": lambda path, image: write_ndpi(path, image, 0.25),
    "vms.vms": lambda path, image: write_vms(path, image, 0.25),
    "leica.scn": lambda path, image: write_scn(path, [(64, 32, image)], (640, 600)),
    "jpg.jpg": picture,
}


def test_every_format_gives_the_same_nuclei(tmp_path: Path) -> None:
    """Formats without loss to the last corner; the others as many nuclei, to within what JPEG changes."""
    image = blobs(5, SIZE, SIZE)
    slides = {name: write(tmp_path / name, image) for name, write in (LOSSLESS | LOSSY).items()}
    code, said = run(tmp_path, *slides.values(), options=("--mpp", 0.25))
    assert code == 0, said
    found = {name: outlines_of(tmp_path, slide) for name, slide in slides.items()}
    expected = found["pyramid.svs"]
    assert len(expected) > 40
    for name, nuclei in found.items():
        if name in LOSSLESS:
            assert nuclei == expected, name
        else:
            assert abs(len(nuclei) - len(expected)) <= 0.05 * len(expected), name


@pytest.mark.shared
@pytest.mark.slow  # equal pixels are tested in test_openslide_reader.py
def test_both_readers_give_a_real_slide_the_same_nuclei(shared: Path, tmp_path: Path) -> None:
    slide = shared / "slides" / "CMU-1-Small-Region.svs"
    found = []
    model = make_model(tmp_path / "red.pt")
    for reader in ("tiffslide", "openslide"):
        folder = tmp_path / reader
        folder.mkdir()
        shutil.copy(model, folder)
        code, said = run(folder, slide, options=("--reader", reader, "--block", 512))
        assert code == 0, said
        found.append((folder / "out" / f"{slide.stem}.geojson").read_bytes())
    assert found[0] == found[1]
