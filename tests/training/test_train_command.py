"""``nuclix train`` from the folder of images to the model file."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import torch

from blobs import blobs, write_folder
from nuclix.engine.cli import main
from nuclix.engine.cli import train as command
from nuclix.engine.inference.model_file import find_model, load_model

TINY = (
    *("--steps", "4", "--batch", "2", "--patch", "32", "--n-feat", "2", "--set", "depth=1", "--threads", "1"),
    *("--device", "cpu", "--precision", "float32", "--seed", "3", "--lr", "0.01"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(
        tmp_path_factory.mktemp("data") / "blobs", [blobs(f"i{seed}", seed=seed) for seed in range(3)]
    )
    (folder / "split.csv").write_text("image,group,split\ni0,a,train\ni1,a,train\ni2,a,validation\n")
    return folder


def train(data: Path, out: Path, *more: str) -> int:
    return main(["train", "dist", "--data", str(data), "--out", str(out), *TINY, *more])


def test_a_folder_becomes_a_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.pt"
    assert train(data, out, "--licence", "CC0", "--augment", "background=0.5") == 0
    card = load_model(out).card
    assert (card.name, card.method, card.postprocessor) == ("tiny", "dist", "dist")
    assert card.training["data"] == "blobs" and card.training["licence of the data"] == "CC0"
    assert card.training["images"] == ["i0", "i1"] and card.training["split"] == "split.csv"
    assert card.training["recipe"]["n_feat"] == 2 and card.training["augmentation"]["background"] == 0.5
    assert set(card.scores["validation"]) == {"mean", "i2"}
    shown = capsys.readouterr().out
    assert "2 images to train on, 1 to validate on" in shown
    assert "AJI" in shown and str(out) in shown
    assert (tmp_path / "tiny.training" / "training.csv").read_text().startswith("step,")


def test_a_second_run_needs_resume_or_another_place(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.pt"
    assert train(data, out) == 0
    first = load_model(out)
    assert train(data, out) == 2
    assert "--resume" in capsys.readouterr().err
    assert train(data, out, "--resume") == 0
    assert load_model(out).card.scores == first.card.scores


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "n_feet=3"], 2, "n_feet"),
        (["--set", "stem=5", "--resume"], 2, "stem must be one of"),
        (["--augment", "rotation=much"], 2, "expected float"),
        (["--device", "abacus"], 2, "abacus"),
        (["--precision", "float8"], 2, "float8"),
        (["--steps", "0"], 2, "steps"),
        (["--batch", "-1"], 2, "batch"),
        (["--patch", "30"], 2, "30"),
        (["--split", "absent.csv"], 1, "absent.csv"),
    ],
    ids=str,
)
def test_wrong_usage_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    assert train(data, tmp_path / "x.pt", *more) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.pt").exists()


def test_missing_data_and_odd_names_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, tmp_path / "x.pt") == 1
    assert "images: no such folder" in capsys.readouterr().err
    assert train(tmp_path, tmp_path / "model.onnx") == 2
    assert "ends in .pt" in capsys.readouterr().err
    assert main(["train", "nonesuch", "--data", str(tmp_path), "--out", str(tmp_path / "x.pt")]) == 1
    assert "nonesuch" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--init-from", "earlier.pt", "--leave-one-out")])
def test_a_blend_needs_one_model_and_one_to_start_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert train(data, tmp_path / "a.pt", "--interpolate", "0.4", *more) == 2
    assert "--interpolate" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_images_train_and_parameters_are_given(data: Path, tmp_path: Path) -> None:
    everything = tmp_path / "data"
    shutil.copytree(data, everything)
    (everything / "split.csv").unlink()
    out = tmp_path / "all.pt"
    assert train(everything, out, "--train-on-all", "--parameter", "p1=0.7", "--parameter", "min_area=9") == 0
    card = load_model(out).card
    assert card.training["images"] == ["i0", "i1", "i2"] and card.scores == {}
    assert card.parameters["p1"] == 0.7 and card.parameters["min_area"] == 9
    assert train(everything, tmp_path / "b.pt", "--train-on-all", "--early-stopping", "3") == 2
    assert train(everything, tmp_path / "c.pt", "--parameter", "p1=0.7") == 2
    assert train(everything, tmp_path / "d.pt", "--fold", "2/3") == 0
    assert len(load_model(tmp_path / "d.pt").card.training["images"]) == 2


def test_a_run_may_start_from_a_shipped_model(data: Path, tmp_path: Path) -> None:
    options = ["--steps", "1", "--batch", "2", "--patch", "32", "--threads", "1", "--device", "cpu", "--lr", "1e-9"]
    out = tmp_path / "tuned.pt"
    command = ["train", "dist", "--data", str(data), "--out", str(out), *options, "--set", "n_feat_inner=88"]
    assert main([*command, "--init-from", "dist-kumar16", "--average", "0.999"]) == 0
    card = load_model(out).card
    assert card.training["started from"] == "dist-kumar16" and card.scores["validation"]["mean"]["f1"] > 0
    image = torch.full((1, 3, 64, 64), 200.0)
    shipped = load_model(find_model("dist-kumar16")).module(image)
    torch.testing.assert_close(load_model(out).module(image), shipped, rtol=1e-2, atol=1e-2)
    assert main([*command, "--init-from", "no-such-model", "--out", str(tmp_path / "x.pt")]) != 0


def test_former_names_of_options_still_work(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="nuclix")
    command.add_parser(parser.add_subparsers())
    former = ["--extra", "more", "--start", "a.pt", "--blend", "0.4", "--patience", "3"]
    args = parser.parse_args(["train", "dist", "--data", "a", "--out", "b.pt", *former])
    assert (args.extra_data, args.init_from, args.interpolate, args.early_stopping) == (
        Path("more"),
        Path("a.pt"),
        0.4,
        3,
    )
    said = capsys.readouterr().err
    present = ("extra-data", "init-from", "interpolate", "early-stopping")
    for old, new in zip([word[2:] for word in former[::2]], present, strict=True):
        assert f"--{old} is deprecated; use --{new}" in said
