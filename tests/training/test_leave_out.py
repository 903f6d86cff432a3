"""Leave-one-patient-out: who is held out is never trained on, a finished fold is not trained again, means are right."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from blobs import blobs, write_folder
from nuclix.engine.cli import main
from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.evaluation import scores
from nuclix.engine.training import leave_out
from nuclix.engine.training.dataset import Dataset
from nuclix.engine.training.leave_out import (
    PatientScores,
    folds,
    markdown,
    mean_of_patients,
    patients_by_barcode,
    read_patients,
    score_fold,
)
from nuclix.engine.training.loop import Place
from nuclix.engine.training.schedule import Schedule
from nuclix.plugins.recipes.probability import ProbabilityRecipe

RECIPE = ProbabilityRecipe("baochuan")
SHORT = Schedule(steps=3, batch=2, patch=32, warmup=1, precision="float32")
WHO = {"a": "ann", "b": "bob", "c": "ann", "d": "cyd"}


def dataset() -> Dataset:
    made = {name: blobs(name, (48, 48), seed) for seed, name in enumerate(WHO)}
    return Dataset(
        (made["d"], made["a"], made["b"]), (made["c"],), "made up", extra=(blobs("x", (48, 48), 8),), share=0.5
    )


def silent(_: object) -> None:
    pass


def test_each_patient_is_held_out_once_with_all_images() -> None:
    found = {fold.patient: fold.dataset for fold in folds(dataset(), WHO)}
    assert list(found) == ["ann", "bob", "cyd"]
    for patient, part in found.items():
        assert [item.name for item in part.validation] == [name for name, who in WHO.items() if who == patient]
        assert [item.name for item in part.train] == [name for name, who in WHO.items() if who != patient]
        assert (part.share, [item.name for item in part.extra]) == (0.5, ["x"])


def test_the_network_sees_all_but_the_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    real = leave_out.train

    def spy(recipe, part, *rest):  # type: ignore[no-untyped-def]
        seen["train"] = {item.name for item in part.train}
        return real(recipe, part, *rest)

    monkeypatch.setattr(leave_out, "train", spy)
    ann = folds(dataset(), WHO)[0]
    found = score_fold(RECIPE, ann, SHORT, Place(tmp_path, "cpu"), silent)
    assert seen["train"] == {"b", "d"}
    assert (found.patient, found.images) == ("ann", 2)
    assert (tmp_path / "ann" / "training.csv").exists()


def test_scores_are_the_means_of_the_usual_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is the truth of another image, so that no score is trivial."""
    ann = folds(dataset(), WHO)[0]
    maps = [np.roll(item.labels > 0, 2, 0).astype(np.float32)[None] for item in ann.dataset.validation]
    monkeypatch.setattr(leave_out, "predict", lambda *_: maps)
    found = score_fold(RECIPE, ann, SHORT, Place(tmp_path, "cpu"), silent)
    split = leave_out.make_postprocessor(RECIPE, RECIPE.candidates()[0])
    rows = [
        scores.score(item.labels, leave_out.label(split, it))
        for item, it in zip(ann.dataset.validation, maps, strict=True)
    ]
    for name in ("accuracy", "f1", "perf", "aji"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(row, name) for row in rows]))
        assert 0 < getattr(found, name) < 1


def test_a_finished_fold_is_read_and_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = folds(dataset(), WHO)[0]
    place = Place(tmp_path, "cpu")
    first = score_fold(RECIPE, ann, SHORT, place, silent)
    with pytest.raises(UsageError, match="--resume"):
        score_fold(RECIPE, ann, SHORT, place, silent)
    monkeypatch.setattr(leave_out, "train", lambda *_: pytest.fail("trained again"))
    again = dataclasses.replace(place, resume=True)
    assert score_fold(RECIPE, ann, SHORT, again, silent) == first
    with pytest.raises(DataError, match=r"other settings \(steps\)"):
        score_fold(RECIPE, ann, dataclasses.replace(SHORT, steps=4), again, silent)
    (tmp_path / "ann" / "scores.json").write_text('{"settings": []')
    with pytest.raises(DataError, match=r"scores\.json: can't be read"):
        score_fold(RECIPE, ann, SHORT, again, silent)


def test_early_stopping_would_look_at_the_patient(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="early stopping"):
        score_fold(
            RECIPE,
            folds(dataset(), WHO)[0],
            dataclasses.replace(SHORT, early_stopping=2),
            Place(tmp_path, "cpu"),
            silent,
        )
    assert not list(tmp_path.iterdir())


def test_one_patient_is_too_few() -> None:
    with pytest.raises(DataError, match="one patient"):
        folds(dataset(), dict.fromkeys(WHO, "ann"))


def test_barcodes() -> None:
    names = ["TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592-01Z-00-DX2", "TCGA-A7-A13E-01Z-00-DX1"]
    assert list(patients_by_barcode(names).values()) == ["TCGA-18-5592", "TCGA-18-5592", "TCGA-A7-A13E"]
    with pytest.raises(DataError, match="slide7 has no TCGA barcode"):
        patients_by_barcode([*names, "slide7"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,organ\na,x\n", "columns image and who"),
        ("", "columns image and who"),
        ("image,who\na,x\n", "the who of b is ''"),
        ("image,who\na,x\nb,\n", "the who of b is ''"),
        ("image,who\na,x\nb\n", "the who of b is ''"),
        ("image,who\na,x\nb,../up\n", "can't name a folder"),
        ("image,who\na,x\nb,..\n", "can't name a folder"),
        ("image,who\na,mean\nb,y\n", "can't name a folder"),
    ],
)
def test_tables_of_patients_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_patients(path, "who", ["a", "b"])


def test_a_table_may_hold_more_than_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "who.csv"
    path.write_text("who,image,split\nann,a,train\nbob,zzz,train\n")
    assert read_patients(path, "who", ["a"]) == {"a": "ann"}
    with pytest.raises(DataError, match="can't be read"):
        read_patients(tmp_path / "absent.csv", "who", ["a"])


def test_patients_count_alike_in_the_mean() -> None:
    rows = [PatientScores("ann", 3, 0.5, 0.2, 0.4, 0.1), PatientScores("b|b", 1, 0.7, 0.6, 0.8, 0.3)]
    mean = mean_of_patients(rows)
    assert (mean.images, mean.accuracy, mean.f1, mean.perf, mean.aji) == (4, *map(pytest.approx, (0.6, 0.4, 0.6, 0.2)))
    lines = markdown([*rows, mean]).splitlines()
    assert lines[2] == "| ann | 3 | 0.5000 | 0.2000 | 0.4000 | 0.1000 |"
    assert lines[3].startswith("| b\\|b | 1 ")


def test_the_command_goes_on_where_it_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "data", [blobs(name, (48, 48), seed) for seed, name in enumerate("abc")])
    (data / "split.csv").write_text("image,patient,split\na,ann,train\nb,bob,train\nc,bob,validation\n")
    command = [
        *("train", "probability", "--data", str(data), "--out", str(tmp_path / "m.pt"), "--leave-one-out"),
        *("--set", "architecture=baochuan", "--steps", "2", "--batch", "2", "--patch", "32", "--threads", "1"),
        *("--device", "cpu", "--precision", "float32", "--patients", str(data / "split.csv")),
    ]
    assert main(command) == 0
    folder = tmp_path / "m.leave-one-out"
    before = (folder / "patients.csv").read_text()
    with (folder / "patients.csv").open(newline="") as file:
        assert [(row["patient"], row["images"]) for row in csv.DictReader(file)] == [
            *(("ann", "1"), ("bob", "2"), ("mean", "3"))
        ]
    shown = capsys.readouterr().out
    assert (folder / "patients.md").read_text() in shown
    assert "3 images of 2 patients" in shown
    assert not (tmp_path / "m.pt").exists()

    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    (folder / "bob" / "scores.json").unlink()  # as if killed after the training and before the scores
    assert main([*command, "--resume"]) == 0
    assert (folder / "patients.csv").read_text() == before
    assert json.loads((folder / "bob" / "scores.json").read_text())["settings"]["out"] == ["b", "c"]
    assert main([*command[: command.index("--patients")], "--resume"]) == 1
    assert "TCGA" in capsys.readouterr().err
