"""`nuclix bench`: its figures agree with each other and with the record; no time is compared with a clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from end_to_end import make_model, make_slide
from nuclix.engine import benchmark
from nuclix.engine.cli.main import main
from nuclix.engine.errors import SlideError, UsageError
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.record import SlideRecord

HEIGHT, WIDTH = 420, 380
REPEAT = 2
ON_ONE_THREAD = ("tissue", "thumbnail", "network", "checkpoint", "write")  # one after another, in the same thread


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "red.pt")


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure a slide of blobs twice; return the JSON file."""
    folder = tmp_path_factory.mktemp("bench")
    slide, file = make_slide(folder / "a.tif", height=HEIGHT, width=WIDTH), folder / "a.json"
    options = ["--model", model, "--device", "cpu", "--threads", 2, "--repeat", REPEAT, "--json", file]
    assert main(["bench", str(slide), *map(str, options)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.tif"]
    return file


def record(**changed: Any) -> SlideRecord:
    """Return the record of a slide of 2 x 1 Mpx at 0.5 um, of which 0.25 mm2 are tissue, that took 10 s."""
    sections: dict[str, Any] = {
        "slide": {"path": "a.svs", "height": 2000, "width": 1000, "mpp": 0.5},
        "model": {},
        "settings": {"threads": 4},
        "seconds": {"start_to_first_tile": 2.0, "wall": 10.0, "read": 12.0, "network": 4.0, "split": 20.0},
        "counts": {"nuclei": 500, "tissue_mm2": 0.25, "rows_resumed": 0},
    }
    return SlideRecord(**{name: {**value, **changed.get(name, {})} for name, value in sections.items()})


def test_figures_follow_from_the_record() -> None:
    found = benchmark.run_figures(record(), 11.5, 1234)
    assert {name: (stage.threads, stage.busy) for name, stage in found.stages.items()} == {
        "read": (4, pytest.approx(0.3)),
        "network": (1, pytest.approx(0.4)),
        "split": (4, pytest.approx(0.5)),
    }
    assert found.bottleneck == "split"
    assert found.values == pytest.approx(
        {
            "run_seconds": 11.5,
            "slide_seconds": 10,
            "start_to_first_tile_seconds": 2,
            "slide_mpx_per_second": 0.2,
            "tissue_mpx_per_second": 0.1,  # 0.25 mm2 are a million pixels of 0.5 um
            "seconds_per_mm2": 40,
            "nuclei_per_second": 50,
            "output_bytes": 1234,
        }
    )


@pytest.mark.parametrize("counts", [{"tissue_mm2": 0.0}, {"tissue_mm2": None}])
def test_a_slide_without_tissue_has_no_rates_of_it(counts: Mapping[str, Any]) -> None:
    found = benchmark.run_figures(record(counts=counts), 11.5, 0)
    assert not {"tissue_mpx_per_second", "seconds_per_mm2"} & found.values.keys()


def test_shares_sums_and_spreads_agree(measured: Path) -> None:
    content = benchmark.read_benchmark(measured)
    assert content["slide"]["mpx"] == HEIGHT * WIDTH / 1e6
    assert content["slide"]["nuclei"] > 0
    assert len(content["runs"]) == content["run"]["repeat"] == REPEAT
    for run in content["runs"]:
        wall, stages = run["values"]["slide_seconds"], run["stages"]
        assert {*ON_ONE_THREAD, "read", "stitch", "split"} == stages.keys()
        assert sum(stages[name]["seconds"] for name in ON_ONE_THREAD) <= wall <= run["values"]["run_seconds"]
        assert {name for name, stage in stages.items() if stage["threads"] == 2} == {"read", "split"}
        for stage in stages.values():
            assert 0 <= stage["busy"] <= 1
            assert stage["busy"] == pytest.approx(stage["seconds"] / (wall * stage["threads"]))
        assert stages[run["bottleneck"]]["busy"] == max(stage["busy"] for stage in stages.values())
        assert run["values"]["slide_mpx_per_second"] * wall == pytest.approx(content["slide"]["mpx"])
        assert run["values"]["nuclei_per_second"] * wall == pytest.approx(content["slide"]["nuclei"])
        assert run["values"]["output_bytes"] > 0
    for name, spread in content["summary"]["values"].items():
        values = [run["values"][name] for run in content["runs"]]
        assert spread == {"min": min(values), "median": pytest.approx(sum(values) / REPEAT), "max": max(values)}
    assert all(content["memory"].values())
    assert content["machine"]["cpus"] > 0


def test_a_synthetic_slide_is_made_where_none_is_given(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--make", "256", "--model", str(model), "--device", "cpu", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    for part in ("synthetic-256.tif: 256 x 256 px", "bottleneck: ", "Mpx/s", "peak memory: ", "whole run"):
        assert part in shown


def test_ratios_are_second_over_first(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = benchmark.read_benchmark(measured)
    second = json.loads(json.dumps(first))
    second["summary"]["values"]["slide_seconds"]["median"] *= 4
    del second["summary"]["values"]["output_bytes"]
    second["run"]["threads"] = 16
    other = tmp_path / "b.json"
    benchmark.write_benchmark(other, second)
    ratios = {row.name: row.ratio for row in benchmark.compare_benchmarks(first, second)}
    assert ratios.pop("slide_seconds") == pytest.approx(4)
    assert "output_bytes" not in ratios
    assert "network_seconds" in ratios
    assert {ratio for ratio in ratios.values() if ratio is not None} == {1.0}
    assert benchmark.differing_conditions(first, second) == [("run threads", 2, 16)]
    assert main(["bench", "--compare", str(measured), str(other)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "not the same: run threads: 2 and 16" in shown
    assert next(line for line in shown if line.startswith("slide_seconds")).split()[-1] == "4.00"


def test_no_ratio_to_nothing() -> None:
    def content(seconds: float) -> dict[str, Any]:
        return {"summary": {"stages": {}, "values": {"x": {"median": seconds}}}, "memory": {}}

    assert benchmark.compare_benchmarks(content(0.0), content(2.0)) == [benchmark.Ratio("x", 0.0, 2.0, None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.tif", "--make", "512"], "either SLIDE or --make"),
        (["--make", "0"], "--make must be at least 1"),
        (["a.tif", "--repeat", "0"], "--repeat must be at least 1"),
        (["a.tif", "--threads", "0"], "threads"),
        (["."], "not a folder"),
        (["a.tif", "--compare", "a.json", "b.json"], "without SLIDE"),
        (["--compare", "none.json", "none.json"], "none.json: can't be read"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_found_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", str(tmp_path / "none" / "a.json")]) == 1
    assert "folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}'])
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"a\.json: not"):
        benchmark.read_benchmark(path)


def test_a_slide_that_fails_says_why(model: Path, tmp_path: Path) -> None:
    slide = tmp_path / "a.tif"
    slide.write_bytes(b"no slide")
    config = RunConfig(inputs=(str(slide),), model=str(model), device="cpu", threads=1)
    with pytest.raises(SlideError, match=r"a\.tif"):
        benchmark.run_benchmark(config)
