"""Files, folders and patterns become slides with names for their results."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch.discover import find_slides
from nuclix.engine.errors import UsageError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(inputs: list[str], out: Path) -> list[str]:
    return [str(job.name) for job in find_slides(inputs, out)]


def test_a_folder_gives_its_slides_by_name_with_sub_folders(tmp_path: Path) -> None:
    make(tmp_path, "b.svs", "a.tiff", "notes.txt", "sub/c.ndpi", ".hidden/d.svs", "sub/.e.svs")
    assert names([str(tmp_path)], tmp_path / "out") == ["a", "b", "sub/c"]


def test_results_inside_the_input_folder_are_no_slides(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "out/a-overlay.png")
    assert names([str(tmp_path)], tmp_path / "out") == ["a"]


def test_a_named_file_is_a_slide_whatever_its_ending(tmp_path: Path) -> None:
    make(tmp_path, "a.dat")
    jobs = find_slides([str(tmp_path / "a.dat")], tmp_path / "out")
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
        find_slides([str(tmp_path / "x"), str(tmp_path / "y")], tmp_path / "out")


def test_what_matches_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.svs"):
        find_slides([str(tmp_path / "nothing.svs")], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no slide"):
        find_slides([str(tmp_path / "empty")], tmp_path / "out")


def test_brackets_in_a_file_name_are_not_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "a[1].svs")
    assert names([str(tmp_path / "a[1].svs")], tmp_path / "out") == ["a[1]"]


def test_a_link_to_a_slide_is_the_slide(tmp_path: Path) -> None:
    make(tmp_path, "real/a.svs")
    (tmp_path / "real" / "b.svs").symlink_to(tmp_path / "real" / "a.svs")
    assert len(find_slides([str(tmp_path / "real")], tmp_path / "out")) == 1


def test_ome_tiff_loses_both_endings_unless_names_clash(tmp_path: Path) -> None:
    for name in ("S1.ome.tif", "S2.OME.TIFF", "x.ome.svs", "b.ome.tif", "b.svs"):
        (tmp_path / name).touch()
    names = {job.path.name: str(job.name) for job in find_slides([str(tmp_path)], tmp_path / "out")}
    assert names == {
        "S1.ome.tif": "S1", "S2.OME.TIFF": "S2", "x.ome.svs": "x.ome", "b.ome.tif": "b.ome.tif", "b.svs": "b.svs",
    }  # fmt: skip
