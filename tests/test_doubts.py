"""Results that look wrong are warned of: in the record, in the report and in the last line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from end_to_end import blobs, make_model, make_slide, nuclix_here, run_options
from nuclix.engine.inference.model_file import read_card
from nuclix.engine.segmentation.doubts import BackgroundCounter, Findings, SlideColours, doubts
from nuclix.engine.segmentation.summary import AREA_BIN_UM2, AREA_BINS, SlideSummary
from nuclix.engine.slide.tissue import TissueMask
from slides import write_slide


def summary_of(area: float, count: int = 1000) -> SlideSummary:
    areas = np.zeros(AREA_BINS + 1, np.int64)
    areas[min(int(area / AREA_BIN_UM2), AREA_BINS)] = count
    return SlideSummary(np.zeros((1, 1), np.int64), 1.0, areas, area * count)


HE = SlideColours(0.98, 244.0)
GOOD = Findings(10, summary_of(50), 10, HE)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (GOOD, None),
        (Findings(10, summary_of(50), None, None), None),
        (Findings(0, summary_of(50, 0), 0, SlideColours(None, 244)), "no tissue was found.*--no-tissue"),
        (Findings(9, summary_of(50, 0), 0, HE), "no nuclei were found"),
        (Findings(9, summary_of(3), 0, HE), "the median nucleus has 3 um2, outside 10 to 400"),
        (Findings(9, summary_of(480), 0, HE), "the median nucleus has 481 um2"),
        (Findings(9, summary_of(3, 5), 0, HE), None),
        (Findings(9, summary_of(50), 501, HE), "501 of 1000 nuclei lie outside the tissue"),
        (Findings(9, summary_of(50), 0, SlideColours(0.2, 200)), "only 20 % of the tissue has the colours of H&E"),
        (Findings(9, summary_of(50), 0, SlideColours(0.2, 20)), "the slide is dark.*bright-field"),
    ],
)
def test_what_is_doubted(found: Findings, said: str | None, tmp_path: Path) -> None:
    import re

    warnings = doubts(found, read_card(make_model(tmp_path / "red.pt")))
    assert len(warnings) == (said is not None)
    assert said is None or re.search(said, warnings[0])


def test_nuclei_in_background_are_counted_where_they_begin() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:, 2:] = True
    counter = BackgroundCounter(TissueMask(mask, 8.0, 1.0))
    counter.add(np.array([[0, 0], [31, 15], [0, 16], [31, 31], [500, 500]]))
    assert counter.count == 2
    assert BackgroundCounter(None).count is None


def test_a_run_over_a_dark_an_empty_and_a_brown_slide_says_so_in_the_last_line(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    make_slide(slides / "good.tif", 1)
    empty = np.full((420, 380, 3), 245, np.uint8)
    write_slide(slides / "empty.tif", empty, mpp=0.25, compression="none")
    dark = (255 - blobs(2, 420, 380)) // 3
    write_slide(slides / "dark.tif", dark.astype(np.uint8), mpp=0.25, compression="none")
    brown = blobs(3, 420, 380).astype(np.float32)
    brown[..., 2] *= 0.6
    write_slide(slides / "brown.tif", brown.astype(np.uint8), mpp=0.25, compression="none")
    end = nuclix_here("run", slides, *run_options(tmp_path / "out", make_model(tmp_path / "red.pt")))
    assert end.code == 0, end.errors
    assert "4 done, 0 failed" in end.said and end.said.rstrip().endswith("; 3 done with warnings")

    def warnings(name: str) -> str:
        return " ".join(json.loads((tmp_path / "out" / f"{name}.json").read_text())["warnings"])

    assert warnings("good") == ""
    assert "no tissue was found" in warnings("empty")
    assert "the slide is dark" in warnings("dark")
    assert "colours of H&E" in warnings("brown")
    assert "the slide is dark" in end.errors and "the slide is dark" in (tmp_path / "out" / "report.html").read_text()
