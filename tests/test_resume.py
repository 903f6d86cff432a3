"""A result is finished if slide, model, options and bytes are those of this run; nothing is deleted without consent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.batch import copies, resume
from nuclix.engine.batch.copies import drop_copies
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, FAILED, PENDING, RUNNING
from nuclix.engine.batch.resume import (
    CheckHooks,
    SlideCheck,
    check_results,
    require_consent,
)
from nuclix.engine.errors import Interrupted, OutputError, PluginError, UsageError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig
from nuclix.engine.slide.identity import file_state, slide_state
from nuclix.engine.slide.scale import UserScale
from resume_case import ResumeCase, touch


def keep_copies(check: SlideCheck) -> tuple[Path, ...]:
    return copies.keep_copies(check.set_aside)


@pytest.fixture
def case(tmp_path: Path) -> ResumeCase:
    return ResumeCase(tmp_path)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every look into a file an error."""

    def read(*_: object) -> str:
        raise AssertionError("a file was read")

    for name in ("checksum", "fingerprint", "content_hash", "quick_digest"):
        monkeypatch.setattr(resume, name, read)


def test_a_finished_slide_is_finished_without_a_look_into_any_file(case: ResumeCase, no_reading: None) -> None:
    check = case.check()
    assert check.done and not check.notice and check.size == 6 and not check.states


@pytest.mark.parametrize("state", [PENDING, RUNNING, FAILED])
def test_a_finished_result_counts_however_the_last_run_ended(case: ResumeCase, state: str) -> None:
    case.row = replace(case.row, state=state)
    assert case.check().done and case.check().states["slide_state"] == case.row.slide_state


def test_where_and_how_fast_it_was_computed_does_not_matter(case: ResumeCase) -> None:
    case.config = replace(case.config, device="cuda:3", block=512, threads=9, batch=4)
    assert case.check().done


CHANGES = [
    (lambda case: case.slide.write_bytes(b"other pixels"), "slide"),
    (lambda case: setattr(case, "config", replace(case.config, tissue=False)), "tissue"),
    (lambda case: setattr(case, "config", replace(case.config, precision="float32")), "precision"),
    (lambda case: setattr(case, "config", replace(case.config, tta=True)), "tta"),
]


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_a_change_stops_the_run_and_deletes_nothing(case: ResumeCase, change, named: str) -> None:
    before = case.files()
    change(case)
    check = case.check()
    assert not check.done and check.changed == (named,)
    with pytest.raises(UsageError, match=rf"1 finished result was made differently \({named}\).*--recompute") as error:
        require_consent([check], case.config)
    assert "--no-recompute" in str(error.value) and "another --out" in str(error.value)
    assert case.files() == before


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_with_consent_the_old_result_stays_until_it_is_replaced(case: ResumeCase, change, named: str) -> None:
    before = case.files()
    change(case)
    (again,) = require_consent([case.check()], replace(case.config, recompute=True))
    assert not again.done and f"computing again, {named} changed" in again.notice
    keep_copies(again)
    assert case.files() == before


def test_without_recompute_a_result_made_differently_is_kept(case: ResumeCase) -> None:
    (kept,) = require_consent([case.check("new model")], replace(case.config, recompute=False))
    assert kept.done and "another model is kept" in kept.notice


def test_reasons_are_grouped_with_examples() -> None:
    jobs = [SlideJob(Path(f"{name}.svs"), PurePosixPath(name)) for name in "abcdef"]
    slides = [SlideCheck(job, changed=("model",)) for job in jobs[:5]] + [SlideCheck(jobs[5], changed=("slide", "tta"))]
    with pytest.raises(
        UsageError,
        match=r"6 finished results were .*other model: a.svs, b.svs, c.svs and 2 more; other slide, tta: f.svs",
    ):
        require_consent(slides, RunConfig(out="o"))


def test_an_upgrade_of_nuclix_keeps_results_of_the_same_format(case: ResumeCase) -> None:
    """0.1.0 had its version in the key, and other names of options."""
    old = json.loads(case.row.key)
    old["flips"] = old.pop("tta")
    key = json.dumps({**old, "nuclix": "0.1.0", "mpp": None})
    case.row = replace(case.row, key=key, slide_state=None, output_state=None, content=None)
    check = case.check()
    assert check.done and json.loads(check.states["output_state"]) == {"a.geojson": file_state(case.result)}
    del old["format"]
    case.row = replace(case.row, key=json.dumps({**old, "nuclix": "0.1.0"}))
    assert case.check().changed == ("format",)


@pytest.mark.parametrize(
    ("user_mpp", "asked", "changed"),
    [
        (None, UserScale(), ()),
        (None, UserScale(0.25, "--mpp"), ()),  # the file states 0.5: --mpp only fills in
        (None, UserScale(0.25, "--force-mpp", overrules=True), ("mpp",)),
        (None, UserScale(0.5, "--force-mpp", overrules=True), ()),
        (0.5, UserScale(), ()),
        (0.5, UserScale(0.5, "--mpp"), ()),
        (0.5, UserScale(0.25, "--mpp"), ("mpp",)),
        (0.5, UserScale(0.25, "slides.csv", overrules=True), ("mpp",)),
    ],
)
def test_a_scale_matters_only_to_slides_that_use_it(
    case: ResumeCase, user_mpp: float | None, asked: UserScale, changed: tuple[str, ...]
) -> None:
    case.row = case.made(user_mpp, 0.5)
    case.job = replace(case.job, scale=asked)
    assert case.check().changed == changed


def test_a_new_modification_time_makes_the_contents_decide(case: ResumeCase) -> None:
    said: list[str] = []
    touch(case.slide)
    touch(case.result)
    check = case.checker(hooks=CheckHooks(on_doubt=lambda: said.append("doubt"))).check(case.job)
    assert check.done and said == ["doubt"]
    assert check.states["slide_state"] == slide_state(case.slide).text
    assert json.loads(check.states["output_state"]) == {"a.geojson": file_state(case.result)}


def test_a_missing_result_is_made_again(case: ResumeCase) -> None:
    case.result.unlink()
    check = case.check()
    assert not check.done and not check.changed and "is missing" in check.notice
    assert keep_copies(check) == ()


@pytest.mark.parametrize("state", [DONE, PENDING, FAILED])
def test_a_result_that_was_edited_is_kept_as_a_copy(case: ResumeCase, state: str) -> None:
    case.row = replace(case.row, state=state)
    for number in ("", "2", "3"):
        case.result.write_text(f"nuclei, corrected by hand{number}")
        check = case.check()
        assert not check.done and "was changed" in check.notice
        (copy,) = keep_copies(check)
        assert copy.name == f"a.geojson.bak{number}" and keep_copies(check) == (copy,)
        assert case.result.read_text() == copy.read_text() == f"nuclei, corrected by hand{number}"
        case.result.unlink()  # what renaming a new result over it does


def test_a_file_that_nuclix_did_not_write_is_kept_even_beside_a_checkpoint(case: ResumeCase) -> None:
    case.row = None
    slide_paths(case.out, case.job).checkpoint.mkdir()
    check = case.check()
    (copy,) = keep_copies(check)
    drop_copies([copy], {"another result"})
    assert copy.name == "a.geojson.bak" and copy.read_text() == "nuclei"
    drop_copies([copy], {checksum(case.result)})  # the run that was killed had written the same
    assert not copy.exists() and case.result.exists()


def test_a_json_of_the_user_is_kept(case: ResumeCase) -> None:
    case.row = None
    case.result.unlink()
    (case.out / "a.json").write_text('{"scanner": "mine"}')
    check = case.check()
    assert "a.json: not written by nuclix" in check.notice
    assert [path.name for path in keep_copies(check)] == ["a.json.bak"]


def test_where_links_are_impossible_a_copy_is_made(case: ResumeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    case.row = None
    monkeypatch.setattr(os, "link", refuse)
    (copy,) = keep_copies(case.check())
    assert copy.read_text() == "nuclei" and not copy.samefile(case.result)


def test_a_result_that_was_written_just_before_a_crash_is_recognised_by_its_record(case: ResumeCase) -> None:
    content = json.loads((case.out / "a.json").read_text())
    content["outputs"] = [{"format": "geojson", "path": "a.geojson", "sha256": checksum(case.result)}]
    content["result"] = {
        "key": case.row.key,
        "slide_state": case.row.slide_state,
        "content": case.row.content,
    }
    (case.out / "a.json").write_text(json.dumps(content))
    for row in (None, replace(case.row, checksum="of an older result", key="{}", output_state="{}", state=RUNNING)):
        case.row = row
        check = case.check()
        assert check.done and check.result["checksum"] == checksum(case.result)
        assert check.result["record"]["slide"] == {"mpp": 0.5}


def test_what_can_not_be_read_is_an_error_of_that_slide(case: ResumeCase) -> None:
    case.row = None
    case.slide.unlink()
    assert "no such file" in case.check().error.lower()
    case.slide.write_bytes(b"")
    assert "empty" in case.check().error


def test_a_share_that_is_away_leaves_finished_slides_finished(case: ResumeCase) -> None:
    case.slide.unlink()
    check = case.check()
    assert check.done and not check.error and "is kept" in check.notice
    case.config = replace(case.config, tta=True)
    assert case.check().error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_result_that_may_not_be_read_costs_only_its_slide(case: ResumeCase) -> None:
    case.row = replace(case.row, output_state=None)
    case.result.chmod(0)
    assert "a.geojson: can't be read or written: Permission denied" in case.check().error


def test_an_unreadable_result_costs_only_its_slide(case: ResumeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    case.row = replace(case.row, output_state=None)
    monkeypatch.setattr(resume, "checksum", refuse)
    assert "a.geojson: can't be read or written: Permission denied" in case.check().error


def test_a_name_that_is_too_long_for_its_results_costs_only_its_slide(case: ResumeCase) -> None:
    name = "n" * 248
    slide = case.slide.with_name(f"{name}.svs")
    slide.write_bytes(b"pixels")
    other, own = check_results([SlideJob(slide, PurePosixPath(name)), case.job], case.checker())
    assert "File name too long" in other.error and own.done


@pytest.mark.parametrize("output", ["../victim", "/etc/passwd", "sub/../../victim"])
def test_a_result_outside_the_output_folder_is_none_of_ours(case: ResumeCase, output: str) -> None:
    victim = case.out.parent / "victim"
    victim.write_text("mine")
    case.row = replace(case.row, output=output, checksum=checksum(victim), output_state=None)
    check = case.check()
    assert not check.done and victim not in check.set_aside


def test_a_linked_checkpoint_is_refused(case: ResumeCase, tmp_path: Path) -> None:
    slide_paths(case.out, case.job).checkpoint.symlink_to(tmp_path)
    assert "is a link" in case.check().error


def test_a_folder_that_can_not_be_written_is_an_output_error(case: ResumeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "a.geojson")

    case.row = None
    check = case.check()
    monkeypatch.setattr(copies, "_keep_copy", read_only)
    with pytest.raises(OutputError, match=r"a\.geojson: can't be copied: Permission denied"):
        keep_copies(check)


def test_an_unknown_writer_is_an_error(case: ResumeCase) -> None:
    case.config = replace(case.config, format=("nonsense",))
    with pytest.raises(PluginError, match="nonsense"):
        case.checker()


def many(folder: Path) -> Iterator[SlideJob]:
    for number in range(30):
        path = folder / f"{number}.svs"
        path.write_bytes(bytes(number + 1))
        yield SlideJob(path, PurePosixPath(str(number)))


def test_slides_keep_their_order(case: ResumeCase, tmp_path: Path) -> None:
    jobs = list(many(tmp_path))
    checks = check_results(jobs, case.checker())
    assert [check.job for check in checks] == jobs and [check.size for check in checks] == list(range(1, 31))


def test_a_request_to_stop_is_heeded_while_slides_are_checked(case: ResumeCase, tmp_path: Path) -> None:
    seen: list[int] = []
    hooks = CheckHooks(should_stop=lambda: bool(seen.append(1)) or len(seen) > 5)
    with pytest.raises(Interrupted):
        check_results(list(many(tmp_path)), case.checker(hooks=hooks))
    assert len(seen) < 30 + 1


def test_hashing_heeds_a_request_to_stop(case: ResumeCase) -> None:
    touch(case.slide)
    answers = iter([False, True])
    with pytest.raises(Interrupted):
        case.checker(hooks=CheckHooks(should_stop=lambda: next(answers))).check(case.job)
