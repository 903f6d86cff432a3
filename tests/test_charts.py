"""Charts: their scales are right and round, and what is drawn adds up."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nuclix.engine.report.axes import Axis, axis_from_zero, nice_step, time_axis
from nuclix.engine.report.charts import (
    QUARTILES,
    AreaRow,
    Interval,
    area_axis_end,
    area_bars,
    area_histogram,
    area_ranges,
    rows_of,
    sparkline,
    stage_columns,
    throughput,
    timeline,
)
from nuclix.engine.segmentation.summary import AREA_BIN_UM2, AREA_BINS, area_quantiles
from outputs import EVENING

SPANS = st.lists(
    st.tuples(st.floats(0, 2e5), st.floats(0, 2e4)).map(lambda pair: (EVENING + pair[0], EVENING + sum(pair))),
    min_size=1,
    max_size=25,
)


@given(st.floats(1e-9, 1e9), st.integers(1, 12))
def test_steps_are_round_and_not_too_many(span: float, ticks: int) -> None:
    step = nice_step(span, ticks)
    assert span / step <= ticks * (1 + 1e-6)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)


@given(st.floats(0, 1e9))
def test_an_axis_from_zero_reaches_over_its_values(high: float) -> None:
    axis = axis_from_zero(high, 200, 10)
    assert axis.high >= high * (1 - 1e-9)
    ticks = axis.ticks(4)
    assert ticks[0] == 0 and 2 <= len(ticks) <= 6
    assert axis.at(0) == 200 and axis.at(axis.high) == 10


def test_what_lies_beyond_an_axis_is_kept_on_it() -> None:
    axis = Axis(0, 10, 100, 200)
    assert (axis.at(-5), axis.at(5), axis.at(99)) == (100, 150, 200)


@given(SPANS)
def test_a_time_axis_keeps_order_and_stays_in_the_drawing(spans: list[tuple[float, float]]) -> None:
    axis = time_axis(spans, 50, 950)
    moments = sorted(moment for span in spans for moment in span)
    places = [axis.at(moment) for moment in moments]
    assert all(a <= b + 1e-6 for a, b in pairwise(places))
    assert places[0] == pytest.approx(50) and places[-1] <= 950 + 1e-6
    assert all(50 - 1e-6 <= axis.at(moment) <= 950 + 1e-6 for moment, _ in axis.ticks())
    assert len(axis.cuts()) == len(axis.spans) - 1


def test_an_idle_day_between_two_runs_is_cut_out() -> None:
    first, second = (EVENING, EVENING + 3600), (EVENING + 86400, EVENING + 90000)
    axis = time_axis([first, second], 0, 1000)
    assert len(axis.spans) == 2
    assert axis.at(first[1]) == pytest.approx(493) and axis.at(second[0]) == pytest.approx(507)
    assert len(time_axis([first, (EVENING + 3700, EVENING + 7000)], 0, 1000).spans) == 1


@given(SPANS)
def test_lanes_do_not_overlap_and_are_as_few_as_can_be(spans: list[tuple[float, float]]) -> None:
    intervals = [Interval(begun, end, 1.0, "a", "done") for begun, end in spans]
    lanes = rows_of(intervals)
    for lane in set(lanes):
        own = sorted((i.begun, i.ended) for i, where in zip(intervals, lanes, strict=True) if where == lane)
        assert all(a[1] <= b[0] for a, b in pairwise(own))
    most = max(sum(i.begun <= j.begun < i.ended or i is j for i in intervals) for j in intervals)
    assert max(lanes) + 1 <= most


@given(SPANS)
def test_throughput_adds_up_to_what_was_computed(spans: list[tuple[float, float]]) -> None:
    assume(all(end - begun >= 1 for begun, end in spans))
    intervals = [Interval(begun, end, 7.0, "a", "done") for begun, end in spans]
    bins, rates = throughput(intervals, time_axis(spans, 50, 950))
    total = sum(rate * (high - low) for (low, high), rate in zip(bins, rates, strict=True))
    assert total == pytest.approx(7.0 * len(spans), rel=1e-6)
    assert rates.min() >= 0


def gamma_areas(seed: int = 0, count: int = 5000) -> np.ndarray:
    areas = np.random.default_rng(seed).gamma(4, 12, count)
    return np.bincount(np.minimum(areas / AREA_BIN_UM2, AREA_BINS).astype(int), minlength=AREA_BINS + 1)


def elements(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def of_class(svg: str, kind: str) -> list[ET.Element]:
    return [item for item in elements(svg).iter() if kind in item.get("class", "").split()]


@pytest.mark.parametrize("end", [40.0, 137.0, 500.0])
def test_bars_hold_the_nuclei_up_to_their_end(end: float) -> None:
    areas = gamma_areas()
    bars, width = area_bars(areas, end)
    count = round(len(bars) * width / AREA_BIN_UM2)
    assert bars.sum() == areas[:count].sum() and len(bars) * width >= min(end, 490)


def test_the_histogram_shows_shares_and_the_median() -> None:
    svg = area_histogram(gamma_areas())
    shares = [float(re.search(r": ([\d.]+) %", bar[0].text or "").group(1)) for bar in of_class(svg, "bar")]  # type: ignore[union-attr]
    assert 98.5 < sum(shares) <= 100.5
    (median,) = area_quantiles(gamma_areas(), (0.5,)) or (0.0,)
    assert f"median {median:.1f} µm²" in svg
    assert len(of_class(svg, "mark")) == 3


def test_one_nucleus_is_a_histogram_too() -> None:
    for place in (0, 30, AREA_BINS):
        areas = np.zeros(AREA_BINS + 1, np.int64)
        areas[place] = 1
        assert of_class(area_histogram(areas), "bar")
        assert elements(sparkline(areas, area_axis_end(areas))) is not None


def test_each_slide_has_its_row_and_its_name_means_nothing() -> None:
    rows = [AreaRow(f'<b onclick="x">{n}\x1b', f"slide-{n}", gamma_areas(n)) for n in range(5)]
    svg = area_ranges(rows)
    assert len(of_class(svg, "box")) == len(of_class(svg, "median")) == 5
    assert all(item.tag in {"svg", "text", "line", "rect", "title", "a"} for item in elements(svg).iter())
    for row, box in zip(rows, of_class(svg, "box"), strict=True):
        quantiles = area_quantiles(row.areas, QUARTILES) or ()
        assert f"median {quantiles[2]:.1f} µm²" in (box[0].text or "")


def test_the_timeline_has_a_bar_for_each_slide() -> None:
    intervals = [Interval(EVENING + 60 * n, EVENING + 60 * n + 90, 40.0, f"<{n}>", "done") for n in range(9)]
    svg = timeline([*intervals, Interval(EVENING, EVENING, 0.0, "bad", "failed")])
    assert len(of_class(svg, "lane")) == 10 and len(of_class(svg, "failed")) == 1


@pytest.mark.parametrize("count", [1, 160, 161, 1000])
def test_stages_are_stacked_and_columns_have_a_bound(count: int) -> None:
    slides = [(10.0, {"read": 1.0, "network": 3.0})] * count
    svg = stage_columns(slides, ("read", "network"))
    read, network = of_class(svg, "s0"), of_class(svg, "s1")
    assert len(read) == len(network) <= 160
    for low, high in zip(read, network, strict=True):
        assert float(high.get("height", 0)) == pytest.approx(3 * float(low.get("height", 0)), abs=0.05)
        assert float(high.get("y", 0)) + float(high.get("height", 0)) == pytest.approx(float(low.get("y", 0)), abs=0.02)
    assert float(read[-1].get("x", 0)) < 960
