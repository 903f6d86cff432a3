"""Input that is odd rather than wrong: each gets one line that names file and reason, and no traceback."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuclix.engine import geojson_file
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.cli.main import main
from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.training.dataset import load_annotated, load_dataset
from nuclix.engine.training.schedule import Schedule

HUGE = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000000000,)}"
TRIANGLE = [[20, 20], [40, 20], [40, 40], [20, 20]]


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Return exit code and stderr of a command."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = int(error.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'out = "a\\u0000b"', "key 'out' must not contain a NUL character"),
        (b"x = " + b"[" * 100_000, "not TOML"),
        (b"retry = " + b"9" * 30, "does not fit into 32 bits"),
        (b"# " + b"x" * 10_000_000, "more than 10,000,000 bytes"),
        (b"\xff\xfe", "not TOML"),
    ],
    ids=["NUL", "deep", "large number", "large file", "no text"],
)
def test_a_configuration_that_can_not_be_used_names_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    code, text = said(capsys, "config", "--config", path)
    assert code == 2
    assert "run.toml" in text
    assert reason in text


def test_a_configuration_may_have_a_byte_order_mark_or_come_from_a_fifo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbfretry = 7\n")
    assert main(["config", "--config", str(path)]) == 0
    assert "retry = 7" in capsys.readouterr().out
    read, write = os.pipe()
    with os.fdopen(write, "wb") as stream:
        stream.write(b"retry = 8\n")
    try:
        assert main(["config", "--config", f"/dev/fd/{read}"]) == 0
    finally:
        os.close(read)
    assert "retry = 8" in capsys.readouterr().out
    assert said(capsys, "config", "--config", "/dev/zero")[0] == 2


def test_a_json_log_that_nobody_reads_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nuclix.engine.batch import events
    from nuclix.engine.errors import UsageError
    from nuclix.engine.progress.display import JsonLines
    from nuclix.engine.progress.meter import RunMeter

    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="can't be written"):
        JsonLines(str(fifo)).take(events.notice("x"), RunMeter().snapshot())


def test_a_deleted_current_folder_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    (tmp_path / "a.svs").touch()
    monkeypatch.chdir(folder)
    folder.rmdir()
    code, text = said(capsys, "run", tmp_path / "a.svs", "--out", "o")
    assert code == 1
    assert "the current folder was deleted: change to another one" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["path = X'ff'", "record = '{'", "record = '[1]'", "bytes = 'many'"])
def test_a_ledger_with_odd_values_says_what_to_do(tmp_path: Path, command: str) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.enlist("a", Path("a.svs"), 1)
    with closing(sqlite3.connect(tmp_path / "nuclix.db")) as database:
        database.execute(f"UPDATE slides SET {command}")
        database.commit()
    with closing(Ledger(tmp_path)) as ledger, pytest.raises(OutputError, match=r"damaged.*move it away"):
        ledger.rows()


def feature(coordinates: object, **properties: object) -> dict[str, object]:
    """Return a polygon of GeoJSON."""
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": coordinates},
        "properties": properties,
    }


def encrypted() -> bytes:
    """Return a zip file that says that its GeoJSON is encrypted."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.geojson", "[]")
    content = bytearray(buffer.getvalue())
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", b"[" * 200_000),
        ("a.geojson", json.dumps([feature([1, 2, 3])]).encode()),
        ("a.geojson", json.dumps([feature([[[10**400, 1], [2, 3], [4, 5]]])]).encode()),
        ("a.geojson", b"[" + b"1" * 5001 + b"]"),
        ("a.zip", encrypted()),
        ("a.zip", b"PK\x05\x06" + bytes(18)),
        ("a.geojson.gz", gzip.compress(b" " * 2000, mtime=0)),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00" + b"{'descr':'|u1','fortran_order':False,'shape':(10**14,)}".ljust(117) + b"\n",
        ),
    ],
    ids=["deep", "point", "huge number", "long number", "encrypted", "empty zip", "no JSON", "huge array"],
)
def test_evaluate_refuses_odd_files_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setattr(geojson_file, "MAX_UNPACKED", 1000)
    truth, odd = tmp_path / "t.png", tmp_path / name
    Image.fromarray(np.eye(60, dtype=np.uint8)).save(truth)
    odd.write_bytes(content)
    code, text = said(capsys, "evaluate", odd, truth)
    assert code == 1
    assert str(odd) in text
    assert text.count("\n") == 1


def test_evaluate_takes_any_object_type_and_a_large_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, odd = tmp_path / "t.png", tmp_path / "a.geojson"
    Image.fromarray(np.ones((60, 60), np.uint8)).save(truth)
    odd.write_text(json.dumps([feature([TRIANGLE], objectType=["a"])]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # less than a half of the image's: Pillow refuses it
    assert main(["evaluate", str(odd), str(truth)]) == 0
    assert Image.MAX_IMAGE_PIXELS == 100
    assert said(capsys, "evaluate", odd, truth, "--csv", odd) == (
        2,
        f"nuclix: error: {odd}: is an input, which would be overwritten; name another file\n",
    )


def write_pair(folder: Path, labels: np.ndarray, name: str = "a") -> tuple[Path, Path]:
    """Write an image and its labels."""
    image, label = folder / "images" / f"{name}.png", folder / "labels" / f"{name}.tif"
    for path in (image, label):
        path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(image)
    import tifffile

    tifffile.imwrite(label, labels)
    return image, label


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [(255, "u1", "a mask, not a label image"), (-3, "i4", "label -3"), (2**31, "u4", "the label 2147483648")],
)
def test_training_refuses_masks_and_numbers_that_are_no_labels(
    tmp_path: Path, value: int, dtype: str, reason: str
) -> None:
    labels = np.zeros((20, 20), dtype)
    labels[2:5, 2:5] = labels[10:14, 10:14] = value
    with pytest.raises(DataError, match=reason):
        load_annotated(*write_pair(tmp_path, labels))


def test_too_few_images_to_validate_names_split(tmp_path: Path) -> None:
    write_pair(tmp_path, np.pad(np.ones((4, 4), np.uint8), 8))
    with pytest.raises(DataError, match="of 1 in all; name them with --split"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", float("nan")),
        ("learning_rate", -1.0),
        ("weight_decay", -1.0),
        ("average", 2.0),
        ("average", float("nan")),
        ("warmup", -5),
        ("seed", -1),
        ("early_stopping", -1),
    ],
)
def test_a_schedule_that_can_not_work_names_its_key(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Schedule(**{name: value})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "dist", "--validate-every", "0"], "--validate-every must be 1 or more"),
        (["train", "dist", "--augment", "scale=nan"], "scale must be 0 or more"),
        (["train", "dist", "--seed", "1" + "0" * 23], "does not fit"),
        (["simulate", "--seed", "-1"], "--seed must be 0 or more"),
        (["simulate", "--size", "1000000"], "billion pixels"),
    ],
)
def test_numbers_of_train_and_simulate_are_checked_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    where = ["--data", str(tmp_path)] if words[0] == "train" else []
    code, text = said(capsys, *words, *where, "--out", tmp_path / "x.pt")
    assert (code, reason in text) == (2, True), text


def test_steps_within_the_warm_up_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "train", "dist", "--data", tmp_path, "--out", tmp_path / "x.pt", "--steps", 5)
    assert code == 1  # there are no images
    assert "--steps 5 ends within the warm-up of 300 steps" in text
