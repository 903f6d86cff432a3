"""Files, folders and patterns become slides with names for their results."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch.discover import discover
from nuclix.engine.errors import UsageError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(inputs: list[str], out: Path) -> list[str]:
    return [str(job.name) for job in discover(inputs, out).jobs]


def test_a_folder_gives_its_slides_by_name_with_sub_folders(tmp_path: Path) -> None:
    make(tmp_path, "b.svs", "a.tiff", "notes.txt", "sub/c.ndpi", ".hidden/d.svs", "sub/.e.svs")
    assert names([str(tmp_path)], tmp_path / "out") == ["a", "b", "sub/c"]


def test_results_inside_the_input_folder_are_no_slides(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "out/a-overlay.png")
    assert names([str(tmp_path)], tmp_path / "out") == ["a"]


def test_a_named_file_is_a_slide_whatever_its_ending(tmp_path: Path) -> None:
    make(tmp_path, "a.dat")
    jobs = discover([str(tmp_path / "a.dat")], tmp_path / "out").jobs
    assert jobs[0].name == PurePosixPath("a") and jobs[0].path == (tmp_path / "a.dat").resolve()


def test_patterns(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "b.svs", "c.tif", "deep/d.svs")
    assert names([str(tmp_path / "*.svs")], tmp_path / "out") == ["a", "b"]
    assert names([str(tmp_path / "**" / "*.svs")], tmp_path / "out") == ["a", "b", "d"]


def test_a_slide_given_twice_is_run_once(tmp_path: Path) -> None:
    make(tmp_path, "a.svs")
    assert names([str(tmp_path), str(tmp_path / "a.svs"), str(tmp_path / "*.svs")], tmp_path / "out") == ["a"]


def test_one_stem_twice_keeps_the_endings_apart(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "a.tif", "b.svs")
    assert names([str(tmp_path)], tmp_path / "out") == ["a.svs", "a.tif", "b"]


def test_dots_in_a_name_stay(tmp_path: Path) -> None:
    make(tmp_path, "TCGA-01.2.3.svs", "TCGA-01.2.4.svs")
    assert names([str(tmp_path)], tmp_path / "out") == ["TCGA-01.2.3", "TCGA-01.2.4"]


def test_two_slides_for_one_result_is_an_error_that_names_both(tmp_path: Path) -> None:
    make(tmp_path, "x/a.svs", "y/a.svs")
    with pytest.raises(UsageError, match=r"x/a\.svs.*y/a\.svs"):
        discover([str(tmp_path / "x"), str(tmp_path / "y")], tmp_path / "out")


def test_what_matches_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.svs"):
        discover([str(tmp_path / "nothing.svs")], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no slide"):
        discover([str(tmp_path / "empty")], tmp_path / "out")


def test_brackets_in_a_file_name_are_not_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "a[1].svs")
    assert names([str(tmp_path / "a[1].svs")], tmp_path / "out") == ["a[1]"]


def test_a_link_to_a_slide_is_the_slide(tmp_path: Path) -> None:
    make(tmp_path, "real/a.svs")
    (tmp_path / "real" / "b.svs").symlink_to(tmp_path / "real" / "a.svs")
    assert len(discover([str(tmp_path / "real")], tmp_path / "out").jobs) == 1


def test_ome_tiff_loses_both_endings_unless_names_clash(tmp_path: Path) -> None:
    for name in ("S1.ome.tif", "S2.OME.TIFF", "x.ome.svs", "b.ome.tif", "b.svs"):
        (tmp_path / name).touch()
    names = {job.path.name: str(job.name) for job in discover([str(tmp_path)], tmp_path / "out").jobs}
    assert names == {
        "S1.ome.tif": "S1", "S2.OME.TIFF": "S2", "x.ome.svs": "x.ome", "b.ome.tif": "b.ome.tif", "b.svs": "b.svs",
    }  # fmt: skip


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def lines(folder: Path) -> list[str]:
    return list(discover([str(folder)], folder / "out").passed_over)


def test_what_is_passed_over_is_said_in_one_line_per_reason(tmp_path: Path) -> None:
    make(
        tmp_path, "a.svs", "b.czi", "c.czi", "d.vsi", "case-1_thumbnail.jpg", "x.label.png", "list.xlsx", "mystery.bin"
    )
    make(tmp_path, *(f"{number}.json" for number in range(7)), ".hidden.svs")
    (tmp_path / "lost.svs").symlink_to(tmp_path / "nowhere.svs")
    assert names([str(tmp_path)], tmp_path / "out") == ["a"]
    assert sorted(lines(tmp_path)) == [
        "passed over 1 (.vsi: no installed reader opens it): d.vsi",
        "passed over 1 (link to nothing): lost.svs",
        "passed over 1 (not recognised by any installed reader): mystery.bin",
        "passed over 2 (.czi: no installed reader opens it): b.czi, c.czi",
        "passed over 2 (thumbnail, label or preview by its name): case-1_thumbnail.jpg, x.label.png",
        "passed over 8 (not an image by its suffix): 0.json, 1.json, 2.json and 5 more",
    ]


def test_slides_are_recognised_by_content_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    make(tmp_path, "no")
    (tmp_path / "scan.im3").write_bytes(b"II*\0" + bytes(20))
    (tmp_path / "image").write_bytes(PNG)
    assert names([str(tmp_path)], tmp_path / "out") == ["image", "scan"]


def test_the_preview_of_an_mrxs_or_vsi_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff" + bytes(20))
    (tmp_path / "b.vsi").write_bytes(b"II*\0" + bytes(20))
    from nuclix.plugins.readers.image import ImageReader
    from nuclix.plugins.readers.tiffslide import TiffSlideReader

    assert not ImageReader.recognises(tmp_path / "a.mrxs") and not TiffSlideReader.recognises(tmp_path / "b.vsi")


def test_linked_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "archive/b.svs", "slides/a.svs", "slides/out/c.svs")
    (tmp_path / "slides" / "linked").symlink_to(tmp_path / "archive")
    (tmp_path / "archive" / "up").symlink_to(tmp_path / "slides")
    found = discover([str(tmp_path / "slides")], tmp_path / "slides" / "out")
    assert [str(job.name) for job in found.jobs] == ["a", "linked/b"]
    assert found.passed_over == ("passed over 1 (linked folder that was searched already): up",)


def test_a_thumbnail_that_is_named_is_a_slide(tmp_path: Path) -> None:
    make(tmp_path, "a_thumbnail.jpg")
    assert names([str(tmp_path / "a_thumbnail.jpg")], tmp_path / "out") == ["a_thumbnail"]


def test_a_dicom_series_is_one_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nuclix.engine.batch import discover as module

    for number, series in enumerate((b"1.2.3", b"1.2.3", b"1.2.3", b"1.2.4")):
        element = b"\x20\x00\x0e\x00UI\x06\x00" + series + b"\0"
        (tmp_path / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + element + bytes(number % 2 * 100))
    monkeypatch.setattr(module, "is_recognised", lambda path, readers: path.suffix == ".dcm")
    found = discover([str(tmp_path)], tmp_path / "out")
    assert [job.path.name for job in found.jobs] == ["1.dcm", "3.dcm"]
    assert found.passed_over == ("passed over 2 (further files of a DICOM series): 0.dcm, 2.dcm",)


def test_a_slide_with_a_result_keeps_its_name_when_another_of_its_stem_is_added(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "a.tif")
    known = {"a": str((tmp_path / "a.svs").resolve())}
    found = discover([str(tmp_path)], tmp_path / "out", known)
    assert [str(job.name) for job in found.jobs] == ["a", "a.tif"]


def test_an_empty_input_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an input is empty"):
        discover([""], tmp_path)


def test_a_folder_without_slides_says_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path, "a.czi")
    with pytest.raises(UsageError, match=r"contains no slide .*\.czi: no installed reader"):
        discover([str(tmp_path)], tmp_path / "out")
