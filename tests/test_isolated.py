"""A slide that crashes or hangs its reader's library does no harm to the command that looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from end_to_end import make_slide
from nuclix.engine.batch.isolated import SlideInspector
from nuclix.engine.cli.main import main
from nuclix.engine.errors import PluginError, SlideError
from openslide_formats import EMPTY_ITEM, NESTED_SEQUENCE, broken_dicom, write_dicom
from slides import smooth_image

MANY = 8_000_000  # items that the library lists when it opens the file, which takes it some ten seconds


def test_a_slide_that_hangs_or_crashes_the_library_is_an_error(tmp_path: Path) -> None:
    slide = write_dicom(tmp_path / "sound", smooth_image(256, 256), 0.25)
    (tmp_path / "other").mkdir()
    (tmp_path / "third").mkdir()
    crashes = broken_dicom(tmp_path / "other" / "crashes.dcm", NESTED_SEQUENCE, 100_000)
    hangs = broken_dicom(tmp_path / "third" / "hangs.dcm", EMPTY_ITEM, MANY)
    with SlideInspector(limit=1.0) as inspector:
        with pytest.raises(
            SlideError, match=r"crashes\.dcm: OpenSlideReader crashed when it opened it \(killed by SIGS"
        ):
            inspector.inspect(crashes)
        with pytest.raises(SlideError, match=r"hangs\.dcm: OpenSlideReader has not opened it within 1 s"):
            inspector.inspect(hangs)
    with SlideInspector() as inspector:
        for _ in range(2):
            found = inspector.inspect(slide)
            assert (found.reader, found.info.vendor, len(found.info.levels)) == ("OpenSlideReader", "dicom", 3)
        with pytest.raises(PluginError, match="openslade"):
            inspector.inspect(slide, "openslade")
        damaged = tmp_path / "damaged.dcm"
        damaged.write_bytes(slide.read_bytes()[:500])
        with pytest.raises(SlideError, match=r"damaged\.dcm: can't be opened by OpenSlide"):
            inspector.inspect(damaged)
        assert inspector.inspect(slide).info.levels[0].width == 256


def test_info_and_check_go_on_after_a_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = make_slide(tmp_path / "good.tif")
    bad = broken_dicom(tmp_path / "bad.dcm", NESTED_SEQUENCE, 100_000)
    assert main(["info", str(bad), str(good)]) == 1
    said = capsys.readouterr()
    assert "bad.dcm: OpenSlideReader crashed" in said.err
    assert "good.tif" in said.out
    assert main(["check", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 slides: 1 refused, 1 compute" in said.out
    assert "bad.dcm: OpenSlideReader crashed" in said.out


def test_readers_without_the_mark_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclix.engine.batch.isolated._Opener", lambda: pytest.fail("a process was started"))
    with SlideInspector() as inspector:
        assert inspector.inspect(make_slide(tmp_path / "a.tif")).reader == "TiffSlideReader"
