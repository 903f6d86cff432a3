"""The page: whole whatever happened, safe whatever things are called, and right in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nuclix.engine.batch.layout import report_path
from nuclix.engine.batch.ledger import DONE, Ledger
from nuclix.engine.batch.lock import FolderLock
from nuclix.engine.cli.main import main
from nuclix.engine.progress.status import read_runs
from nuclix.engine.report.collect import collect
from nuclix.engine.report.page import render, write_report
from outputs import FakeSlide, fill, outcome, write_run

SLIDES = [
    FakeSlide("one", (9000, 12000), seed=1),
    FakeSlide("two", (20000, 8000), warnings=("clumps were cut 3 times",), seed=2),
    FakeSlide("three", error="slides/three.svs: the file ends in the middle"),
    FakeSlide("ten", (7000, 7000), seed=4),
]
EVIL = "\"'><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._open.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(out: Path) -> Page:
    return Page(render(collect(out)))


def assert_self_contained(text: str) -> None:
    page = Page(text)
    assert page.tags["script"] == page.tags["style"] == 1 and not page.tags["link"] and not page.tags["iframe"]
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("src", "href"):
            assert value.startswith(("data:image/", "#")), (name, value[:80])
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for name, value in page.attributes if name == "href"} <= set(page.ids)
    assert "default-src 'none'" in text


def test_a_run_with_a_failure(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    write_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert_self_contained(text)
    page = Page(text)
    assert "Finished, 1 of 4 slides failed" in page.text
    assert "three the file ends in the middle" in page.text
    assert "1 finished slide has warnings: two" in page.text and "clumps were cut 3 times" in page.text
    total = sum(slide.nuclei or 0 for slide in collect(tmp_path).slides)
    assert f"{total:,}" in page.text
    assert page.tags["figure"] == 4 and text.count('class="density"') == 3
    assert text.count("data:image/jpeg") == 3 and page.tags["svg"] == 3 + 4
    assert 'loading="lazy"' in text and "dist-kumar16" in page.text and "Versions" in page.text


def test_a_run_without_failures(tmp_path: Path) -> None:
    fill(tmp_path, [SLIDES[0], SLIDES[3]])
    page = page_of(tmp_path)
    assert "Finished, all slides done" in page.text and "Nothing needs attention." in page.text


def test_all_failed(tmp_path: Path) -> None:
    fill(tmp_path, [FakeSlide(f"s{n}", error=f"slides/s{n}.svs: no slide") for n in range(30)])
    text = render(collect(tmp_path))
    assert_self_contained(text)
    page = Page(text)
    assert "Finished, 30 of 30 slides failed" in page.text and "and 18 more" in page.text
    assert "Nuclear area" not in page.text and "Time by stage" not in page.text


def test_no_slides_at_all(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    text = render(collect(tmp_path))
    assert_self_contained(text)
    assert "No slides" in Page(text).text


def test_an_empty_slide_has_a_row_and_a_picture_and_no_density(tmp_path: Path) -> None:
    fill(tmp_path, [SLIDES[0], SLIDES[3]])
    ledger = Ledger(tmp_path)
    entry = outcome(SLIDES[0], 0, 3.0)
    entry["record"]["counts"].update(pixels=0, tissue_mm2=0.0)
    ledger.finish("one", entry)
    ledger.close()
    text = render(collect(tmp_path))
    assert_self_contained(text)
    assert text.count('class="density"') == 1


def test_half_a_run(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    ledger = Ledger(tmp_path)
    ledger.enlist("four", Path("four.svs"), 10)
    ledger.enlist("five", Path("five.svs"), 10)
    ledger.begin("five")
    ledger.close()
    (run,) = read_runs(tmp_path)
    write_run(tmp_path, replace(run, stopped="SIGTERM received"))
    page = page_of(tmp_path)
    assert "Not finished: 2 of 6 slides left" in page.text
    assert "The last run ended early: SIGTERM received. The same command resumes." in page.text
    assert "interrupted" in page.text and "pending" in page.text


def test_made_while_the_run_is_at_work(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    (run,) = read_runs(tmp_path)
    write_run(tmp_path, replace(run, ended=None, updated=time.time()))
    with FolderLock(tmp_path):
        page = page_of(tmp_path)
    assert "Running: 3 of 4 slides done" in page.text


def test_results_of_two_configurations_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    ledger = Ledger(tmp_path)
    entry = outcome(SLIDES[0], 10, 3.0)
    ledger.finish("one", {**entry, "key": entry["key"].replace("fdfd", "abcd")})
    ledger.close()
    page = page_of(tmp_path)
    assert "made with 2 different configurations" in page.text
    assert "Results, configuration 1" in page.text and "Results, configuration 2" in page.text


def test_a_result_that_is_being_replaced_shows_no_old_figures(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES[:2])
    ledger = Ledger(tmp_path)
    ledger.reset("one")
    ledger.close()
    facts = {slide.name: slide for slide in collect(tmp_path).slides}
    assert facts["one"].state != DONE and facts["one"].nuclei is None and not facts["one"].output
    assert facts["two"].nuclei


def test_thumbnails_and_summaries_that_are_gone_or_broken_leave_the_page_whole(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    report_path(tmp_path, "one", ".npz").write_bytes(b"PK broken")
    report_path(tmp_path, "one", ".jpg").write_bytes(b"\xff\xd8 broken")
    report_path(tmp_path, "two", ".npz").unlink()
    text = render(collect(tmp_path))
    assert_self_contained(text)
    assert "no picture" in text and text.count("data:image/jpeg") == 2


def evil_folder(out: Path) -> None:
    """Everything that comes from outside tries to be markup: names, paths, errors, warnings, records, the host."""
    fill(out, [
        FakeSlide(f"done {EVIL}".replace("/", "_"), (4000, 5000), warnings=(EVIL,), facts={"vendor": EVIL}),
        FakeSlide("failed", error=f"slides/{EVIL}: no slide"),
        FakeSlide("undecodable", error="caf\udce9\x00\x1b[31m"),
    ])  # fmt: skip
    ledger = Ledger(out)
    entry = outcome(FakeSlide("other"), 5, 2.0)
    entry["record"]["model"] = {"name": EVIL, "postprocessor": EVIL, "parameters": {EVIL: EVIL}}
    ledger.enlist("other", Path(EVIL), 3)
    ledger.finish("other", {**entry, "key": '{"model": "' + "</style><script>" + '"}'})
    ledger.close()
    (run,) = read_runs(out)
    write_run(out, replace(run, host=EVIL, stopped=EVIL, pid=run.pid + 1))


def test_nothing_from_outside_becomes_markup(tmp_path: Path) -> None:
    evil_folder(tmp_path)
    text = render(collect(tmp_path))
    assert_self_contained(text)
    assert EVIL in Page(text).text and "<script>document" not in text and "<img src=x" not in text


def test_many_slides_make_a_page_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [FakeSlide(f"s{n}", (3000, 5000), seed=n % 3) for n in range(42)])
    whole = len(render(collect(tmp_path)))
    monkeypatch.setattr("nuclix.engine.report.pictures.BUDGET_BYTES", 42 * 0.25 * 120**2)
    small = render(collect(tmp_path))
    assert_self_contained(small)
    assert len(small) < 0.8 * whole
    assert "the 20 with the smallest and the largest medians" in Page(small).text


def test_the_command_writes_the_page_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    fill(out, SLIDES)
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").is_file() and str(out / "report.html") in capsys.readouterr().out
    assert main(["report", str(out), "--to", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file()
    assert main(["report", str(out), "--to", str(tmp_path / "missing" / "page.html")]) == 1
    assert "can't be written" in capsys.readouterr().err


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to show the page")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--virtual-time-budget=5000", "--host-resolver-rules=MAP * ~NOTFOUND"),
)


def shown(page: Path, profile: Path, *flags: str) -> str:
    """Show a page in a browser that reaches no network; return what it prints."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@browser
def test_in_a_browser_nothing_injected_runs_and_all_of_it_is_drawn(tmp_path: Path) -> None:
    evil_folder(tmp_path)
    page = tmp_path / "report.html"
    write_report(tmp_path, page)
    dom = shown(page, tmp_path / "profile", "--dump-dom")
    assert "<title>pwned" not in dom and "<title>nuclix: " in dom
    assert Page(dom).tags["figure"] == 4


@browser
def test_in_a_browser_the_table_sorts_and_finds(tmp_path: Path) -> None:
    fill(tmp_path, SLIDES)
    text = render(collect(tmp_path))
    # Another script than the page's own can only run where the page's policy is taken away.
    clicks = """<script>{
      const order = () => [...document.querySelectorAll("#slide-table tbody tr")]
        .filter((row) => !row.hidden).map((row) => row.cells[0].textContent).join(" ");
      const heads = document.querySelectorAll("#slide-table thead button");
      const said = [order()];
      heads[0].click(); said.push(order());
      heads[3].click(); said.push(order());
      heads[3].click(); said.push(order());
      const find = document.getElementById("find"); find.value = "T"; find.dispatchEvent(new Event("input"));
      said.push(order());
      const state = document.getElementById("state"); state.value = "failed"; state.dispatchEvent(new Event("input"));
      said.push(order());
      const shown = () => getComputedStyle(document.querySelector(".stack .density")).visibility;
      said.push(shown()); document.getElementById("overlay-none").click(); said.push(shown());
      document.title = said.join("|");
    }</script></body>"""
    page = tmp_path / "page.html"
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", clicks))
    dom = shown(page, tmp_path / "profile", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    first, name, tissue, tissue_down, found, failed, density, none = title.group(1).split("|")
    assert first == name == "one ten three two"
    assert tissue == "ten one two three"  # 24, 54 and 80 million pixels; what is not known comes last
    assert tissue_down == "two one ten three"
    assert found == "two ten three" and failed == "three"
    assert (density, none) == ("visible", "hidden")


@browser
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser_the_page_is_drawn_light_and_dark(tmp_path: Path, dark: bool) -> None:
    from PIL import Image

    fill(tmp_path, SLIDES)
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    write_report(tmp_path, page)
    shown(
        page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1280,2400", *["--force-dark-mode"] * dark
    )
    image = Image.open(picture).convert("RGB")
    paper = image.getpixel((3, 3))
    assert image.size == (1280, 2400) and paper == ((17, 21, 27) if dark else (245, 246, 248))
    colors = image.getcolors(maxcolors=1 << 24) or []
    assert len(colors) > 1000  # pictures and charts, not text alone
    assert max(count for count, _ in colors) < 0.9 * image.size[0] * image.size[1]
