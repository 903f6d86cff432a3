"""`nuclix bench network`, `kernels`, `margin` and `--scaling`: what they print follows from what they ran."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from end_to_end import make_model, make_slide
from nuclix.engine.bench.kernels import make_fields, time_kernels
from nuclix.engine.bench.margins import Picture, compare_margins, mirrored, stitched_maps
from nuclix.engine.bench.scaling import _doubled
from nuclix.engine.cli.bench_parts import joined
from nuclix.engine.cli.main import main
from nuclix.engine.geometry import Box
from nuclix.engine.inference.model_check import check_network
from nuclix.engine.inference.model_file import LoadedModel, load_model, read_card
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.model_card import PatchShape
from nuclix.plugins.postprocessors.dist import Dist

SETTINGS = InferenceSettings(torch.device("cpu"), torch.float32, 1)
REACH = 20


class Blur(torch.nn.Module):
    """A map that looks `REACH` pixels around: the mean darkness of the red channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = (255 - images[:, :1].float()) / 16
        return torch.nn.functional.avg_pool2d(red, 2 * REACH + 1, 1, REACH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("parts") / "red.pt")


@pytest.fixture
def blurred(model: Path) -> LoadedModel:
    return replace(load_model(model), module=Blur())


def image() -> np.ndarray:
    pixels = np.full((200, 230, 3), 255, np.uint8)
    for row, col in np.random.default_rng(3).integers(10, 190, (25, 2)):
        pixels[row - 6 : row + 6, col - 6 : col + 6] = 20
    return pixels


def test_words_are_joined_for_parts_only() -> None:
    assert joined(["bench", "network", "--repeat", "2"]) == ["bench-network", "--repeat", "2"]
    assert joined(["bench", "slide.svs"]) == ["bench", "slide.svs"]
    assert joined(["run", "network"]) == ["run", "network"]


def test_a_margin_that_reaches_far_enough_changes_nothing(blurred: LoadedModel) -> None:
    picture = Picture("a", (200, 230), mirrored(image()))
    shapes = [PatchShape(128, margin, 16) for margin in (48, 32, 16, 0)]
    widest, enough, less, none = compare_margins(blurred, SETTINGS, Dist(p2=0.5), [picture], shapes)
    assert widest.nuclei > 0 and widest.map_change == enough.map_change == 0
    assert enough.lost == enough.changed == 0
    assert 0 < less.map_change < none.map_change
    assert none.useful == 1 and less.useful == pytest.approx((96 / 128) ** 2)
    assert none.lost + none.changed > 0


def test_scores_are_those_of_the_labels(blurred: LoadedModel) -> None:
    pixels, post = image(), Dist(p2=0.5)
    maps = stitched_maps(Predictor(blurred, SETTINGS), Picture("a", (200, 230), mirrored(pixels)))
    truth = post.split(maps, post.foreground(maps))
    shape = blurred.card.patch
    (found,) = compare_margins(blurred, SETTINGS, post, [Picture("a", (200, 230), mirrored(pixels), truth)], [shape])
    assert found.aji == 1 and found.nuclei == truth.max()


def test_an_image_goes_on_as_its_mirror_image() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    expected = np.pad(pixels, ((3, 3), (4, 1), (0, 0)), mode="symmetric")
    assert np.array_equal(mirrored(pixels)(Box(-3, -4, 8, 7)), expected)


def test_a_tested_margin_is_not_refused(blurred: LoadedModel) -> None:
    from nuclix.engine.errors import ModelError

    small = replace(blurred.card, patch=PatchShape(64, 16, 16))
    narrow = replace(blurred, card=replace(small, patch=PatchShape(64, 0, 16)))
    with pytest.raises(ModelError, match="margin of 0 px is too small"):
        check_network(Predictor(narrow, SETTINGS))
    tested = replace(narrow, card=replace(narrow.card, margin_test={"lost": 1}))
    assert check_network(Predictor(tested, SETTINGS)) == []


def test_the_margin_is_written_with_what_was_measured(model: Path, tmp_path: Path) -> None:
    slide, out = make_slide(tmp_path / "a.tif", height=300, width=200), tmp_path / "b.pt"
    written = tmp_path / "m.json"
    command = ["bench", "margin", str(slide), "--model", str(model), "--device", "cpu", "--precision", "float32"]
    assert main([*command, "--margins", "16,0", "--write", str(out), "--json", str(written)]) == 0
    card = read_card(out)
    assert card.patch == replace(read_card(model).patch, margin=0)
    assert card.margin_test["reference"] == 16 and card.margin_test["lost"] == 0  # a pixel-wise network
    with zipfile.ZipFile(model) as before, zipfile.ZipFile(out) as after:
        assert before.namelist() == after.namelist()
        for name in before.namelist():
            assert name.endswith("nuclix.json") or before.read(name) == after.read(name)
    assert [item["patch"]["margin"] for item in json.loads(written.read_text())["margins"]] == [16, 0]


def test_network_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "n.json"
    command = ["bench", "network", "--model", str(model), "--device", "cpu", "--precisions", "float32"]
    assert main([*command, "--sizes", "64,128", "--batches", "1,2", "--repeat", "2", "--json", str(written)]) == 0
    rows = json.loads(written.read_text())["network"]
    assert [(row["size"], row["batch"]) for row in rows] == [(64, 1), (64, 2), (128, 1), (128, 2)]
    for row in rows:
        assert row["mpx_per_second"] * row["seconds"] == pytest.approx(row["batch"] * row["size"] ** 2 / 1e6)
        assert row["useful_mpx_per_second"] < row["mpx_per_second"]
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_runtime_that_does_not_work_is_a_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "network", "--model", str(model), "--device", "cpu", "--precisions", "float32"]
    assert main([*command, "--runtimes", "torch,onnx", "--repeat", "1"]) == 0
    assert "onnx" in capsys.readouterr().out.splitlines()[2].lower()


def test_kernels_and_their_peers_get_the_same_work() -> None:
    fields = make_fields(128)
    assert fields.labels.max() > 0 and (fields.distance[fields.labels > 0] > 0.5).all()
    found = list(time_kernels(128, 1))
    assert len(found) == 6 and all(item.seconds > 0 for item in found)


def test_threads_and_processes_double_up_to_the_most() -> None:
    assert _doubled(1, 1) == [1] and _doubled(1, 2) == [1, 2] and _doubled(1, 6) == [1, 2, 4, 6]
    assert _doubled(2, 1) == [] and _doubled(2, 2) == [2] and _doubled(2, 5) == [2, 4, 5]


def test_scaling_runs_threads_then_processes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide, written = make_slide(tmp_path / "a.tif", height=200, width=180), tmp_path / "s.json"
    command = ["bench", str(slide), "--model", str(model), "--device", "cpu", "--threads", "2", "--scaling"]
    assert main([*command, "--json", str(written)]) == 0
    points = json.loads(written.read_text())["scaling"]
    assert [(point["processes"], point["threads"]) for point in points] == [(1, 1), (1, 2), (2, 1)]
    assert points[2]["mpx_per_second"] * points[2]["seconds"] == pytest.approx(2 * 200 * 180 / 1e6)
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["margin"], "either a slide or image, or --data"),
        (["margin", "a.tif", "--margins", "7", "--model", "dist-kumar16"], "--margins"),
        (["network", "--repeat", "0"], "--repeat must be at least 1"),
        (["kernels", "--size", "0"], "--size must be at least 1"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err
