"""Folders against folders: matching, means, groups, the paired test, the reports and the command."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nuclix.engine.cli import evaluate as command
from nuclix.engine.cli.main import guarded
from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.evaluation import plots as score_plot
from nuclix.engine.evaluation.evaluate import compare, evaluate, group_means, read_groups
from nuclix.engine.evaluation.scores import METRICS, mean_of, score
from nuclix.engine.evaluation.tables import TITLES, Report, as_csv, as_json, as_markdown, as_text
from nuclix.engine.evaluation.wilcoxon import signed_rank_test

STEMS = ("a", "b", "c", "d")


def labels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 2, (6, 7)) * rng.permutation(42).reshape(6, 7), np.ones((4, 4), int)).astype(
        np.uint16
    )


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Make `truth`, `good` (a pixel off) and `bad` (two off, some lost) of four images each."""
    for name in ("truth", "good", "bad"):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate(STEMS):
        truth = labels(seed)
        bad = np.roll(truth, (2, 1), (0, 1))
        bad[bad % 3 == 0] = 0
        Image.fromarray(truth).save(tmp_path / "truth" / f"{stem}.png")
        np.save(tmp_path / "good" / f"{stem}.npy", np.roll(truth, 1, 1))
        np.save(tmp_path / "bad" / f"{stem}.npy", bad)
    return tmp_path


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser(prog="nuclix")
    command.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["evaluate", *map(str, arguments)])
    return guarded(args.command, args)


def test_every_image_is_scored_and_means_are_means(folders: Path) -> None:
    found = evaluate(folders / "good", folders / "truth")
    assert tuple(found.images) == STEMS
    for seed, stem in enumerate(STEMS):
        assert found.images[stem] == score(labels(seed), np.roll(labels(seed), 1, 1))
    mean = mean_of(list(found.images.values()))
    for metric in METRICS:
        assert getattr(mean, metric) == pytest.approx(np.mean([getattr(s, metric) for s in found.images.values()]))
    assert sorted(found.truth_areas) == sorted(
        np.concatenate([np.unique(labels(s), return_counts=True)[1][1:] for s in range(4)])
    )
    perfect = evaluate(folders / "truth", folders / "truth")
    assert mean_of(list(perfect.images.values())).aji == 1.0
    assert perfect.notes == ()


def test_two_files_need_not_share_a_name(folders: Path) -> None:
    found = evaluate(folders / "good" / "b.npy", folders / "truth" / "a.png")
    assert tuple(found.images) == ("a",)
    with pytest.raises(DataError, match="no prediction for a"):
        evaluate(folders / "good" / "b.npy", folders / "truth")


def test_missing_counterparts(folders: Path) -> None:
    (folders / "good" / "b.npy").unlink()
    (folders / "truth" / "c.png").unlink()
    with pytest.raises(DataError, match=r"good has no prediction for b of .*truth"):
        evaluate(folders / "good", folders / "truth")
    assert "no truth for c" in evaluate(folders / "bad", folders / "truth").notes[0]


def test_groups(folders: Path) -> None:
    found = evaluate(folders / "good", folders / "truth")
    path = folders / "groups.csv"
    path.write_text(
        "\ufeffImage,organ\na.png,liver\n\nb,liver \nc.svs,breast\nd,breast\nother,lung\n", encoding="utf-8"
    )
    groups = read_groups(path, STEMS)
    assert groups == {"a": "liver", "b": "liver", "c": "breast", "d": "breast"}
    means = group_means(found.images, groups)
    assert list(means) == ["breast", "liver"]
    assert means["liver"] == mean_of([found.images["a"], found.images["b"]])
    path.write_text("a,liver\nb,liver\nc,liver\n")
    with pytest.raises(DataError, match="no group for d"):
        read_groups(path, STEMS)
    path.write_text("a,liver\nb\n")
    with pytest.raises(DataError, match="line 2"):
        read_groups(path, STEMS)
    path.write_text("a,liver\na.tif,lung\n")
    with pytest.raises(DataError, match="two groups, liver and lung"):
        read_groups(path, STEMS)
    for content in (b"\xff\xfe\x00", None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(DataError, match=r"groups\.csv can't be read"):
            read_groups(path, STEMS)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_signed_rank_test_counts_all_arrangements(values: list[int]) -> None:
    differences = np.array([value / 10 for value in values if value])
    sizes = np.abs(differences)
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    observed = ranks[differences > 0].sum()
    arrangements = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))]
    assert signed_rank_test(np.array(values) / 10) == pytest.approx(np.mean(np.array(arrangements) >= observed - 1e-9))


def test_the_signed_rank_test_equals_scipys_without_ties() -> None:
    from scipy.stats import wilcoxon

    for size in (5, 14, 40):
        differences = np.random.default_rng(size).normal(0.2, 1, size)
        expected = wilcoxon(differences, alternative="greater", method="exact").pvalue
        assert signed_rank_test(differences) == pytest.approx(expected, rel=1e-9)
        assert signed_rank_test(differences.round(1)) == pytest.approx(expected, rel=0.25)
    assert signed_rank_test(np.full(14, 0.1)) == 2**-14
    assert signed_rank_test(np.zeros(5)) == signed_rank_test(np.zeros(0)) == 1.0


def test_a_comparison_knows_which_way_is_better(folders: Path) -> None:
    good, bad = (evaluate(folders / name, folders / "truth") for name in ("good", "bad"))
    forth, back = compare(good, bad), compare(bad, good)
    for metric in ("aji", "pq", "mean_ap", "ahd"):
        assert forth[metric].p_value == 2**-4
        assert back[metric].p_value == 1.0
        assert forth[metric].difference == -back[metric].difference
        assert (forth[metric].difference < 0) == (metric == "ahd")
    assert compare(good, good)["aji"].p_value == 1.0
    with pytest.raises(DataError, match="same images"):
        compare(good, evaluate(folders / "bad" / "a.npy", folders / "truth" / "a.png"))


def test_the_reports_hold_every_score(folders: Path) -> None:
    good, bad = (evaluate(folders / name, folders / "truth") for name in ("good", "bad"))
    groups = dict(zip(STEMS, ("x", "x", "y", "y|z"), strict=True))
    report = Report(good, groups, bad)
    document = json.loads(as_json(report))
    assert document["images"]["b"] == dataclasses.asdict(good.images["b"])
    assert document["against"]["mean"] == dataclasses.asdict(mean_of(list(bad.images.values())))
    assert set(document["groups"]) == {"x", "y", "y|z"}
    assert document["wilcoxon"]["aji"] == dataclasses.asdict(compare(good, bad)["aji"])
    assert tuple(document["titles"]) == tuple(TITLES) == METRICS
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == 2 * (4 + 3 + 1 + 1)
    assert float(rows[1]["aji"]) == good.images["b"].aji
    assert [row["kind"] for row in rows[3:9]] == ["image", "group", "group", "group", "mean of groups", "mean"]
    for text in (as_text(report), as_markdown(report)):
        for title in TITLES.values():
            assert title in text
        assert f"{good.images['b'].aji:.4f}" in text
        assert "0.0625" in text
    tables = [line for line in as_markdown(report).splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (9, 7) for line in tables)
    assert max(map(len, as_text(Report(good)).splitlines()[2:])) < 80


def test_the_command(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "groups.csv").write_text("a,x\nb,x\nc,y\nd,y\n")
    out = folders / "out"
    out.mkdir()
    files = [out / f"scores.{suffix}" for suffix in ("json", "csv", "md")]
    code = run(
        folders / "good", folders / "truth", "--against", folders / "bad", "--groups", folders / "groups.csv",
        "--json", files[0], "--csv", files[1], "--markdown", files[2],
    )  # fmt: skip
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert "mean of groups" in printed.out
    assert json.loads(files[0].read_text())["mean"]["f1"] > 0
    assert files[1].read_text().startswith("prediction,kind,name,group,aji,")
    assert files[2].read_text().startswith("## ")
    assert sorted(out.iterdir()) == sorted(files)


def test_the_command_says_what_is_wrong(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, truth = folders / "good", folders / "truth"
    assert run(folders / "none", truth) == 1
    assert "none does not exist" in capsys.readouterr().err
    assert run(good, truth, "--json", folders / "no" / "s.json") == 1
    assert "no is no folder" in capsys.readouterr().err
    assert run(good, truth, "--json", truth) == 2
    assert "is an input" in capsys.readouterr().err
    (folders / "folder").mkdir()
    assert run(good, truth, "--json", folders / "folder") == 1
    assert "can't be written" in capsys.readouterr().err
    assert run(good, truth, "--plot", "sizes.txt") == 2
    assert "--plot writes .png" in capsys.readouterr().err
    for factor in ("0", "-1", "nan", "x"):
        with pytest.raises(SystemExit) as stop:
            run(good, truth, "--downsample", factor)
        assert stop.value.code == 2
        assert f"{factor} is not a positive number" in capsys.readouterr().err


def test_plotting_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install matplotlib"):
        score_plot.check_plotting(tmp_path / "a.png")


def test_densities_have_the_area_one_and_equal_scipys() -> None:
    from scipy.stats import gaussian_kde

    areas = np.random.default_rng(0).integers(50, 900, 400)
    points = np.linspace(-1000, 2000, 4000)
    density = score_plot.size_density(areas, points)
    assert np.trapezoid(density, points) == pytest.approx(1, abs=1e-6)
    kernel = gaussian_kde(areas)
    kernel.set_bandwidth(kernel.factor * np.std(areas) / np.std(areas, ddof=1))
    np.testing.assert_allclose(density, kernel(points), atol=1e-9)
    assert score_plot.size_density(np.full(3, 7), points).max() > 0
    assert not score_plot.size_density(np.zeros(0, np.int64), points).any()


def test_the_plot(folders: Path) -> None:
    pytest.importorskip("matplotlib")
    path = folders / "sizes.png"
    assert run(folders / "good", folders / "truth", "--plot", path, "--against", folders / "bad") == 0
    with Image.open(path) as image:
        assert image.size == (1050, 600)
    assert score_plot.plot_sizes({"none": np.zeros(0, np.int64)}, ".svg").startswith(b"<?xml")
