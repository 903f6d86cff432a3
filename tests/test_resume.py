"""A result counts if slide, config, model and checksum are those of the ledger; the rest is treated with care."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine import registry
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import slide_paths
from nuclix.engine.batch.ledger import DONE, FAILED, PENDING, LedgerRow
from nuclix.engine.batch.resume import SlideCheck, check_results, discard_stale, request_key
from nuclix.engine.errors import OutputError, PluginError, UsageError
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig
from nuclix.engine.slide.open import fingerprint


class ResumeCase:
    """A folder with a slide, its result and the ledger's row about it."""

    def __init__(self, folder: Path) -> None:
        self.slide = folder / "a.svs"
        self.slide.write_bytes(b"pixels")
        self.out = folder / "out"
        self.out.mkdir()
        self.result = self.out / "a.geojson"
        self.result.write_text("nuclei")
        (self.out / "a.json").write_text("record")
        self.job = SlideJob(self.slide, PurePosixPath("a"))
        self.config = RunConfig(out=str(self.out))
        key = request_key(fingerprint(self.slide), "model", self.config)
        facts = dict(error=None, begun=1.0, ended=2.0, record={}, fingerprint="", attempts=1, bytes=6)
        self.row = LedgerRow(
            "a", "a.svs", key=key, state=DONE, output="a.geojson", checksum=checksum(self.result), **facts
        )

    def plan(self, model: str = "model") -> SlideCheck:
        rows = {"a": self.row} if self.row else {}
        (plan,) = check_results([self.job], rows, model, self.config)
        return plan


@pytest.fixture
def case(tmp_path: Path) -> ResumeCase:
    return ResumeCase(tmp_path)


def test_a_done_slide_is_done(case: ResumeCase) -> None:
    plan = case.plan()
    assert plan.done and not plan.notice and plan.size == 6


def test_where_and_how_fast_it_was_computed_does_not_matter(case: ResumeCase) -> None:
    case.config = replace(case.config, device="cuda:3", block=512, threads=9, batch=4)
    assert case.plan().done


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda case: case.slide.write_bytes(b"other pixels"), "slide"),
        (lambda case: setattr(case, "config", replace(case.config, mpp=0.5)), "mpp"),
        (lambda case: setattr(case, "config", replace(case.config, tissue=False)), "tissue"),
        (lambda case: setattr(case, "config", replace(case.config, precision="float32")), "precision"),
        (lambda case: setattr(case, "config", replace(case.config, tta=True)), "tta"),
    ],
)
def test_a_change_is_said_and_the_old_result_goes_when_work_begins(case: ResumeCase, change, named: str) -> None:
    change(case)
    plan = case.plan()
    assert not plan.done and f"a different {named};" in plan.notice
    assert case.result.exists()
    discard_stale(plan)
    assert [path.name for path in case.out.iterdir()] == []


def test_another_model_is_said(case: ResumeCase) -> None:
    assert "a different model;" in case.plan("new model").notice


def test_an_old_result_is_known_as_such_after_a_run_that_never_got_to_it(case: ResumeCase) -> None:
    case.row = replace(case.row, state=PENDING)
    assert not case.plan().done and not case.plan().notice
    assert "a different model" in case.plan("new model").notice
    discard_stale(case.plan("new model"))
    assert not case.result.exists()


def test_a_missing_result_is_made_again(case: ResumeCase) -> None:
    case.result.unlink()
    plan = case.plan()
    assert not plan.done and "is missing" in plan.notice
    discard_stale(plan)


@pytest.mark.parametrize("state", [DONE, PENDING, FAILED])
def test_a_changed_result_may_be_someones_work_and_is_kept(case: ResumeCase, state: str) -> None:
    case.result.write_text("nuclei, corrected by hand")
    case.row = replace(case.row, state=state)
    for number in ("", "2", "3"):
        plan = case.plan()
        assert not plan.done and "was changed" in plan.notice
        discard_stale(plan)
        assert (case.out / f"a.geojson.bak{number}").read_text() == "nuclei, corrected by hand"
        case.result.write_text("nuclei, corrected by hand")


def test_a_file_that_no_run_made_is_kept(case: ResumeCase) -> None:
    case.row = None
    plan = case.plan()
    assert "was not written by nuclix" in plan.notice
    discard_stale(plan)
    assert (case.out / "a.geojson.bak").read_text() == "nuclei" and not case.result.exists()


def test_the_result_of_a_run_that_was_killed_before_it_could_say_so_is_overwritten(case: ResumeCase) -> None:
    case.row = None
    slide_paths(case.out, case.job).checkpoint.mkdir()
    plan = case.plan()
    assert not plan.done and not plan.notice and not plan.unrecognised


def test_what_can_not_be_read_is_an_error_of_that_slide(case: ResumeCase) -> None:
    case.slide.unlink()
    assert "no such file" in case.plan().error.lower()
    case.slide.write_bytes(b"")
    assert "empty" in case.plan().error


def test_a_folder_that_can_not_be_written_is_an_output_error(case: ResumeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    plan = case.plan("new model")
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OutputError, match=r"a\.geojson: can't be removed: Permission denied"):
        discard_stale(plan)


def test_an_unknown_writer_is_an_error(case: ResumeCase) -> None:
    case.config = replace(case.config, format=("nonsense",))
    with pytest.raises(PluginError, match="nonsense"):
        case.plan()


def test_slides_keep_their_order(case: ResumeCase, tmp_path: Path) -> None:
    jobs = []
    for number in range(30):
        path = tmp_path / f"{number}.svs"
        path.write_bytes(bytes(number + 1))
        jobs.append(SlideJob(path, PurePosixPath(str(number))))
    plans = check_results(jobs, {}, "model", case.config)
    assert [plan.job for plan in plans] == jobs and [plan.size for plan in plans] == list(range(1, 31))


def test_a_format_that_is_new_is_added_without_touching_the_others(case: ResumeCase) -> None:
    case.config = replace(case.config, format=("geojson", "geojson.gz"))
    plan = case.plan()
    assert not plan.done and plan.notice == "a.svs: adding geojson.gz to the finished result"
    discard_stale(plan)
    assert case.result.read_text() == "nuclei"
    extra = case.out / "a.geojson.gz"
    extra.write_bytes(b"more")
    outputs = [
        {"format": "geojson", "path": "a.geojson", "sha256": checksum(case.result)},
        {"format": "geojson.gz", "path": "a.geojson.gz", "sha256": checksum(extra)},
    ]
    case.row = replace(case.row, record={"outputs": outputs})
    assert case.plan().done
    case.config = replace(case.config, format=("geojson.gz",), tissue_annotations=True)
    assert "adding geojson.gz" in case.plan().notice


def test_the_format_that_auto_stands_for_depends_on_the_number_of_nuclei(case: ResumeCase) -> None:
    case.row = replace(case.row, record={"counts": {"nuclei": 300_000}})
    assert "adding geojson-zip" in case.plan().notice


def test_a_file_of_someone_else_in_the_place_of_a_new_format_is_kept(case: ResumeCase) -> None:
    other = case.out / "a.geojson.gz"
    other.write_text("someone's")
    case.config = replace(case.config, format=("geojson.gz",))
    plan = case.plan()
    assert not plan.done and plan.unrecognised == (other,)
    discard_stale(plan)
    assert (case.out / "a.geojson.gz.bak").read_text() == "someone's"


def test_two_formats_of_one_file_are_an_error(case: ResumeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    class Same:
        suffix = ".geojson"

    monkeypatch.setattr(registry, "load", lambda group, name: Same)
    case.config = replace(case.config, format=("a", "b"))
    with pytest.raises(UsageError, match=r"a and b would both write NAME\.geojson"):
        case.plan()
