"""The folder of a core facility: many makers, previews, links, a plain TIFF without scale; check, run, run --mpp."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from end_to_end import RecordingObserver, blobs, config_for, make_model, make_slide, results
from nuclix.engine.batch.check import COMPUTE, DONE, REFUSED, forecast
from nuclix.engine.batch.runner import StopFlag, run_batch
from nuclix.engine.run_config import RunConfig
from vendors import write_ndpi, write_ome, write_scn

# Slides that state their scale, and the source that `check` shows.
STATED = ("aperio", "generic", "hamamatsu", "leica", "linked/other", "ome", "zeiss")
SILENT = "silent"
PASSED_OVER = {
    "thumbnail, label or preview by its name": "aperio_thumbnail.jpg",
    ".vsi: no installed reader opens it": "olympus.vsi",
    ".mrxs: no installed reader opens it": "mirax.mrxs",
    ".dcm: no installed reader opens it": "dicom.dcm",
    "linked folder that was searched already": "loop",
    "link to nothing": "gone.svs",
    "not an image by its suffix": "notes.xlsx",
}


def write_folder(folder: Path) -> Path:
    """Write the folder, and another folder that it links to."""
    slides, other = folder / "slides", folder / "archive"
    make_slide(slides / "aperio.svs", 0, 200, 180)
    make_slide(slides / "generic.tif", 1, 200, 180)
    make_slide(other / "other.svs", 2, 200, 180)
    make_slide(slides / "silent.tif", 3, 200, 180, mpp=None)
    write_ndpi(slides / "hamamatsu.ndpi", blobs(4, 512, 512), 0.25)
    write_scn(slides / "leica.scn", [(32, 64, blobs(5, 256, 256))], (320, 384))
    write_ome(slides / "ome.ome.tif", blobs(6, 200, 180))
    try:
        from vendors import write_czi

        write_czi(slides / "zeiss.czi", [(0, 0, blobs(7, 256, 256))])
    except ImportError:
        pytest.skip("without pylibCZIrw there is no CZI to read")
    Image.fromarray(blobs(8, 64, 64)).save(slides / "aperio_thumbnail.jpg")
    Image.fromarray(blobs(9, 64, 64)).save(slides / "mirax.mrxs", format="JPEG")  # its preview; the data is missing
    tifffile.imwrite(slides / "olympus.vsi", blobs(10, 64, 64))  # a VSI is the TIFF of its preview
    (slides / "dicom.dcm").write_bytes(bytes(128) + b"DICM")
    (slides / "notes.xlsx").write_bytes(b"PK")
    (slides / "gone.svs").symlink_to(folder / "nowhere.svs")
    (slides / "linked").symlink_to(other)
    (other / "loop").symlink_to(slides)
    return slides


def scale_of(config: RunConfig, name: str) -> tuple[float, str]:
    """Return um/px of a finished slide, and where that is from."""
    slide = json.loads((config.output_folder / f"{name}.json").read_text())["slide"]
    return slide["mpp"], slide["mpp_source"]


def test_check_run_and_run_again_with_mpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python's warning filters belong to the process: one thread at a time, as the tests make warnings errors.
    monkeypatch.setattr("nuclix.engine.batch.check._THREADS", 1)
    config = config_for(tmp_path / "out", make_model(tmp_path / "red.pt"), write_folder(tmp_path))
    config = replace(config, tissue=False)
    before = forecast(config)
    assert not config.output_folder.exists()
    actions = {slide.name: slide.action for slide in before.slides}
    assert actions == {**dict.fromkeys(STATED, COMPUTE), SILENT: REFUSED}
    for reason, name in PASSED_OVER.items():
        assert any(reason in line and name in line for line in before.passed_over), (reason, before.passed_over)
    assert len(before.passed_over) == len(PASSED_OVER)

    notes = RecordingObserver()
    first = run_batch(config, notes, StopFlag())
    assert sorted(first.done) == sorted(STATED)
    assert set(first.failed) == {SILENT}
    assert set(before.passed_over) <= set(notes.notices)
    made = results(config.output_folder)
    scales = {name: scale_of(config, name) for name in STATED}

    filled = replace(config, mpp=0.25)  # what the message of the slide without scale says
    then = {slide.name: slide.action for slide in forecast(filled).slides}
    assert then == {**dict.fromkeys(STATED, DONE), SILENT: COMPUTE}
    second = run_batch(filled, RecordingObserver(), StopFlag())
    assert set(second.done) == {SILENT}
    assert sorted(second.skipped) == sorted(STATED)
    after = results(config.output_folder)
    assert {name: after[name] for name in made} == made, "no slide that knows its scale may change"
    assert set(after) - set(made) == {"silent.geojson"}
    assert {name: scale_of(config, name) for name in STATED} == scales
    assert scale_of(config, SILENT) == (0.25, "--mpp")
