"""What a run does with its output folder before it begins."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import prepare_folder, remove_temporaries, report_path
from nuclix.engine.errors import OutputError
from nuclix.engine.files import replace_file, temporary_name

JOBS = [SlideJob(Path("a.svs"), PurePosixPath("a")), SlideJob(Path("b.svs"), PurePosixPath("sub/b"))]


def test_what_killed_runs_left_half_written_goes_and_all_else_stays(tmp_path: Path) -> None:
    ours = [tmp_path, tmp_path / "sub", *(report_path(tmp_path, str(job.name), ".jpg").parent for job in JOBS)]
    for folder in ours:
        folder.mkdir(parents=True, exist_ok=True)
        temporary_name(folder / "a.geojson").write_text("half")
    (tmp_path / ".nuclix-probe-77").touch()
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    kept = [
        temporary_name(elsewhere / "c.geojson"),  # not a folder of this run's
        tmp_path / "a.geojson",
        tmp_path / "mine.nuclix.tmp",
        tmp_path / ".mine.tmp",
        tmp_path / ".a.spool",
    ]
    for path in kept:
        path.write_text("whole")
    remove_temporaries(tmp_path, JOBS)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_folders_that_are_not_there_yet_are_no_trouble(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "out")
    remove_temporaries(tmp_path / "new" / "out", JOBS)
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_what_can_not_be_removed_is_said(tmp_path: Path) -> None:
    temporary_name(tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="can't be written: Is a directory"):
        remove_temporaries(tmp_path, JOBS)


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written: Not a directory"):
        prepare_folder(tmp_path / "file" / "out")


def test_a_file_killed_over_its_writing_bears_a_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "a.json", b"{}")
    assert len(list(tmp_path.iterdir())) == 1
    remove_temporaries(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
