"""Slides of every format through the whole engine: the same picture gives the same nuclei."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from end_to_end import blobs, make_model, make_slide, nuclix, run_options
from slides import damage_tile, lose_tile, write_slide

SIZE = 384


def run(folder: Path, *slides: Path, options: tuple[object, ...] = ()) -> tuple[int, str]:
    """Run the command line on slides; return its exit code and what it said."""
    model = folder / "red.pt"
    if not model.exists():
        make_model(model)
    process = nuclix("run", *slides, *run_options(folder / "out", model), *options)
    said, errors = process.communicate()
    return process.returncode, said + errors


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
    damage_tile(slide, 0, 4)
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
    (tmp_path / "out" / "a.geojson").unlink()
    assert run(tmp_path, slide, options=("--reader", "openslide"))[0] == 0
    assert record_of(tmp_path, slide)["slide"]["reader"] == "OpenSlideReader"
    assert outlines_of(tmp_path, slide) == nuclei
    code, said = run(tmp_path, slide, options=("--reader", "opensilde", "--no-tissue"))
    assert code != 0
    assert "did you mean 'openslide'?" in said


@pytest.mark.shared
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
