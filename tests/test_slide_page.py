"""Pages of single slides: whole for odd slides, right about places, safe whatever things are called."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclix.engine.batch.layout import objects_path, slide_page_path
from nuclix.engine.cli.main import main
from nuclix.engine.report.collect import collect
from nuclix.engine.report.fields import DENSEST, DOUBTFUL, RANDOM, choose_doubtful, choose_fields
from nuclix.engine.report.page import render
from nuclix.engine.report.slide_pages import pages_of_run, write_slide_pages
from nuclix.engine.report.slide_scan import FIELD_UM, SlideScan, scan
from nuclix.engine.segmentation.object_index import BlockIndexBuilder, object_boxes, touching
from nuclix.engine.segmentation.store import ObjectStore
from stored_folders import IMMUNE, MPP, RADIUS, STROMA, TUMOR, Nuclei, objects_of, write_folder
from test_report import Page

SHAPE = (900, 1200)
SEVERAL = (TUMOR, STROMA, IMMUNE)


def page_of(out: Path, name: str = "slide") -> str:
    summary = write_slide_pages(collect(out), out / "report.html")
    assert summary.failed == {} and summary.made + summary.current == 1
    return slide_page_path(out / "report.html", name).read_text()


def assert_self_contained(text: str) -> None:
    page = Page(text)
    assert not page.tags["script"] and not page.tags["link"] and page.tags["style"] == 1
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "src" or value.startswith("data:image/")
        assert name != "href" or value.startswith("#") or value.endswith("report.html")
    assert not re.search(r"https?://|@import|url\(", text)
    assert {value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize(("count", "classes"), [(0, (TUMOR,)), (1, (TUMOR,)), (400, SEVERAL), (3, SEVERAL)])
def test_pages_of_odd_slides(tmp_path: Path, count: int, classes: tuple) -> None:
    out = tmp_path / "out"
    write_folder(out, Nuclei.scattered(count, SHAPE, len(classes)), classes)
    text = page_of(out)
    assert_self_contained(text)
    page = Page(text)
    assert f"{count:,}" in page.text and "StrictUndefined" not in text
    assert ("No nuclei were found" in page.text) == (count == 0)
    assert ("Sample fields" in page.text) == (count > 0)
    if len(classes) > 1:
        assert "<i>Immune & co</i>" in page.text and "<i>Immune" not in text
        assert 'class="over-map classes"' in text
    if count == 1:
        assert page.tags["figure"] == 2, "one field, whatever it was chosen for, and one nucleus"


def test_fields_are_the_densest_and_the_least_sure(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dense = rng.uniform((100, 100), (250, 250), (300, 2))
    doubtful = rng.uniform((650, 900), (750, 1000), (30, 2))
    rest = rng.uniform((20, 20), (880, 1180), (100, 2))
    middles = np.concatenate([dense, doubtful, rest])
    scores = np.concatenate([np.full(300, 0.9), np.full(30, 0.1), np.full(100, 0.8)])
    out = tmp_path / "out"
    write_folder(out, Nuclei(middles, np.zeros(430, np.int32), scores))
    with ObjectStore(objects_path(out, "slide")) as store:
        counted = scan(store)
        fields = choose_fields(counted, "seed")
        assert choose_fields(counted, "seed")[0].nuclei == fields[0].nuclei
        crops = choose_doubtful(counted)
    assert counted.counts.sum() == 430 and counted.areas.sum() == 430 and counted.scores.sum() == 430
    by_kind = {kind: [field for field in fields if field.kind == kind] for kind in (DENSEST, DOUBTFUL, RANDOM)}
    assert touching(np.array([[100.0, 100, 250, 250]]), by_kind[DENSEST][0].box)[0]
    assert by_kind[DENSEST][0].nuclei >= 300
    assert touching(np.array([[650.0, 900, 750, 1000]]), by_kind[DOUBTFUL][0].box)[0]
    assert by_kind[DOUBTFUL][0].score < 0.5
    for a in fields:
        assert np.allclose(a.box[2:] - a.box[:2], FIELD_UM / MPP)
        assert sum(touching(np.array([a.box]), b.box)[0] for b in fields) == 1, "fields overlap"
    assert crops and all(crop.score == pytest.approx(0.1) for crop in crops[:3])


def test_outlines_lie_on_the_picture_where_the_nuclei_are(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, Nuclei(np.array([[300.0, 500.0]]), np.zeros(1, np.int32), np.array([0.3])))
    text = page_of(out)
    field = re.search(
        r'id="field-1".*?viewBox="0 0 (\d+) (\d+)".*?d="M(\d+) (\d+)l.*?x (\d+), y (\d+)<', text, re.DOTALL
    )
    assert field is not None
    width, height, x, y, left, top = map(int, field.groups())
    assert (width, height) == (4000, 4000), "400 px in tenths: 200 um at 0.5 um/px"
    assert (x / 10 + left, y / 10 + top) == (500, 300 - RADIUS), "the first corner"
    assert text.count("#c80000") >= 1


def test_current_pages_are_kept_and_others_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, Nuclei.scattered(20, SHAPE))
    report = out / "report.html"
    assert write_slide_pages(collect(out), report).made == 1
    assert write_slide_pages(collect(out), report).current == 1
    assert 'href="report-slides/slide.html"' in render(collect(out), report)
    assert "report-slides" not in render(collect(out))
    write_folder(out, Nuclei.scattered(30, SHAPE))
    assert "report-slides" not in render(collect(out), report), "the page is of an earlier result"
    assert write_slide_pages(collect(out), report, seconds=-1).left == 1
    assert write_slide_pages(collect(out), report).made == 1


def test_a_slide_that_is_gone_or_another_one_leaves_a_page_without_tissue(tmp_path: Path) -> None:
    out = tmp_path / "out"
    slide = write_folder(out, Nuclei.scattered(200, SHAPE))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    slide.rename(moved / slide.name)
    summary = write_slide_pages(collect(out), out / "report.html")
    assert "no such file" in summary.failed["slide"]
    text = slide_page_path(out / "report.html", "slide").read_text()
    assert "can&#39;t be shown" in text or "can't be shown" in text
    assert 'class="tissue bare"' in text and "report-slides" in render(collect(out), out / "report.html")
    assert "no such file" in pages_of_run(collect(out), out / "report.html")
    assert write_slide_pages(collect(out), out / "report.html", slides=moved).made == 1
    assert write_slide_pages(collect(out), out / "report.html").current == 1
    other = tmp_path / "other"
    other.mkdir()
    write_folder(other / "out", Nuclei.scattered(3, (500, 500)), shape=(500, 500))
    assert main(["report", str(out), "--slides", str(other), "--to", str(tmp_path / "r.html")]) == 0
    assert "the result is of a slide of 1200 x 900 px" in slide_page_path(tmp_path / "r.html", "slide").read_text()


def test_damaged_objects_fail_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    write_folder(out, Nuclei.scattered(20, SHAPE), name="a/b c#ü")
    assert main(["report", str(out)]) == 0
    assert 'href="report-slides/a/b%20c%23%C3%BC.html"' in (out / "report.html").read_text()
    page = slide_page_path(out / "report.html", "a/b c#ü")
    assert 'href="../../report.html"' in page.read_text()
    objects_path(out, "a/b c#ü").write_bytes(b"PK no")
    assert main(["report", str(out)]) == 0
    assert "can't be read" in capsys.readouterr().err
    assert main(["report", str(out), "--no-slide-pages"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["report", str(out), "--slides", str(tmp_path / "none")]) == 2


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(10, 2000), st.integers(10, 2000)), max_size=60), st.integers(1, 20))
def test_no_object_of_a_box_is_missed(middles: list[tuple[int, int]], size: int) -> None:
    places = np.array(middles, np.float64).reshape(-1, 2)
    nuclei = Nuclei(places, np.zeros(len(places), np.int32), np.ones(len(places)))
    builder = BlockIndexBuilder()
    boxes = object_boxes(objects_of(nuclei))
    np.testing.assert_allclose(boxes, np.column_stack([places - RADIUS, places + RADIUS]), atol=1 / 32)
    parts = [boxes[start : start + size] for start in range(0, len(boxes), size)]
    for part in parts:
        builder.add(part)
    index = builder.result()
    wanted = np.array([500.0, 300.0, 900.0, 1100.0])
    found = sum(int(touching(parts[block], wanted).sum()) for block in index.blocks_touching(wanted))
    assert found == touching(boxes, wanted).sum()
    for number in range(len(boxes)):
        block, place = index.block_of(number)
        assert np.array_equal(parts[block][place], boxes[number])
    with pytest.raises(IndexError):
        index.block_of(len(boxes))


def test_nuclei_without_scores_have_no_doubtful_fields() -> None:
    empty = np.zeros((0, 3))
    counts = np.zeros((6, 6), np.int64)
    counts[2, 2] = 20
    index = BlockIndexBuilder().result()
    extent, areas = np.full(2, 1200.0), np.zeros((1, 251), np.int64)
    counted = SlideScan(
        index, 0.5, 200.0, np.zeros(2), extent, counts, np.zeros((6, 6)), areas, np.zeros(50, np.int64), empty
    )
    fields = choose_fields(counted, "s")
    assert [field.kind for field in fields] == [DENSEST] and fields[0].score is None
    assert choose_doubtful(counted) == ()
    assert choose_fields(replace(counted, counts=np.zeros((6, 6), np.int64)), "s") == ()
