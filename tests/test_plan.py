"""A result counts if slide, settings, model and checksum are those of the ledger; the rest is treated with care."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from nuclix.engine.errors import OutputError, PluginError
from nuclix.engine.inputs import SlideJob
from nuclix.engine.ledger import DONE, FAILED, PENDING, LedgerRow
from nuclix.engine.plan import SlidePlan, make_plans, make_room, request_key
from nuclix.engine.settings import RunSettings
from nuclix.engine.slide import fingerprint
from nuclix.engine.slide_run import checksum, spool_folder


class Desk:
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
        self.settings = RunSettings(self.out)
        key = request_key(fingerprint(self.slide), "model", self.settings)
        facts = dict(error=None, begun=1.0, ended=2.0, record={}, fingerprint="", attempts=1, bytes=6)
        self.row = LedgerRow(
            "a", "a.svs", key=key, state=DONE, output="a.geojson", checksum=checksum(self.result), **facts
        )

    def plan(self, model: str = "model") -> SlidePlan:
        rows = {"a": self.row} if self.row else {}
        (plan,) = make_plans([self.job], rows, model, self.settings)
        return plan


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_done_slide_is_done(desk: Desk) -> None:
    plan = desk.plan()
    assert plan.done and not plan.notice and plan.size == 6


def test_where_and_how_fast_it_was_computed_does_not_matter(desk: Desk) -> None:
    desk.settings = replace(desk.settings, device="cuda:3", block=512, workers=9, batch=4)
    assert desk.plan().done


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda desk: desk.slide.write_bytes(b"other pixels"), "slide"),
        (lambda desk: setattr(desk, "settings", replace(desk.settings, mpp=0.5)), "mpp"),
        (lambda desk: setattr(desk, "settings", replace(desk.settings, tissue=False)), "tissue"),
        (lambda desk: setattr(desk, "settings", replace(desk.settings, precision="float32")), "precision"),
        (lambda desk: setattr(desk, "settings", replace(desk.settings, flips=True)), "flips"),
    ],
)
def test_a_change_is_said_and_the_old_result_goes_when_work_begins(desk: Desk, change, named: str) -> None:
    change(desk)
    plan = desk.plan()
    assert not plan.done and f"another {named};" in plan.notice
    assert desk.result.exists()
    make_room(plan)
    assert [path.name for path in desk.out.iterdir()] == []


def test_another_model_is_said(desk: Desk) -> None:
    assert "another model;" in desk.plan("new model").notice


def test_an_old_result_is_known_as_such_after_a_run_that_never_got_to_it(desk: Desk) -> None:
    desk.row = replace(desk.row, state=PENDING)
    assert not desk.plan().done and not desk.plan().notice
    assert "another model" in desk.plan("new model").notice
    make_room(desk.plan("new model"))
    assert not desk.result.exists()


def test_a_missing_result_is_made_again(desk: Desk) -> None:
    desk.result.unlink()
    plan = desk.plan()
    assert not plan.done and "is missing" in plan.notice
    make_room(plan)


@pytest.mark.parametrize("state", [DONE, PENDING, FAILED])
def test_a_changed_result_may_be_someones_work_and_is_kept(desk: Desk, state: str) -> None:
    desk.result.write_text("nuclei, corrected by hand")
    desk.row = replace(desk.row, state=state)
    for number in ("", "2", "3"):
        plan = desk.plan()
        assert not plan.done and "was changed" in plan.notice
        make_room(plan)
        assert (desk.out / f"a.geojson.bak{number}").read_text() == "nuclei, corrected by hand"
        desk.result.write_text("nuclei, corrected by hand")


def test_a_file_that_no_run_made_is_kept(desk: Desk) -> None:
    desk.row = None
    plan = desk.plan()
    assert "not known to be its result" in plan.notice
    make_room(plan)
    assert (desk.out / "a.geojson.bak").read_text() == "nuclei" and not desk.result.exists()


def test_the_result_of_a_run_that_was_killed_before_it_could_say_so_is_overwritten(desk: Desk) -> None:
    desk.row = None
    spool_folder(desk.out, desk.job).mkdir()
    plan = desk.plan()
    assert not plan.done and not plan.notice and plan.foreign is None


def test_what_can_not_be_read_is_an_error_of_that_slide(desk: Desk) -> None:
    desk.slide.unlink()
    assert "no such file" in desk.plan().error.lower()
    desk.slide.write_bytes(b"")
    assert "empty" in desk.plan().error


def test_a_folder_that_can_not_be_written_is_an_output_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    plan = desk.plan("new model")
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OutputError, match=r"a\.geojson: can't be removed: Permission denied"):
        make_room(plan)


def test_an_unknown_writer_is_an_error(desk: Desk) -> None:
    desk.settings = replace(desk.settings, writer="nonsense")
    with pytest.raises(PluginError, match="nonsense"):
        desk.plan()


def test_slides_keep_their_order(desk: Desk, tmp_path: Path) -> None:
    jobs = []
    for number in range(30):
        path = tmp_path / f"{number}.svs"
        path.write_bytes(bytes(number + 1))
        jobs.append(SlideJob(path, PurePosixPath(str(number))))
    plans = make_plans(jobs, {}, "model", desk.settings)
    assert [plan.job for plan in plans] == jobs and [plan.size for plan in plans] == list(range(1, 31))
