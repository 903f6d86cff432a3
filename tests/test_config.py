"""One list of options: command line, file and record agree, and what is wrong is named."""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclix.engine.cli.main import main
from nuclix.engine.cli.options import add_options, config_of
from nuclix.engine.config_file import config_as_toml, read_config
from nuclix.engine.errors import UsageError
from nuclix.engine.run_config import (
    COARSEST_MPP,
    FINEST_MPP,
    OptionSpec,
    RunConfig,
    config_as_json,
    option_specs,
    result_settings,
)

# A value of each option that is not its default, with the words that give it on the command line.
OTHER: dict[str, tuple[Any, list[str]]] = {
    "inputs": (("a.svs", "b c.svs"), ["a.svs", "b c.svs"]),
    "out": ("results", ["--out", "results"]),
    "format": (("geojson", "csv"), ["--format", "geojson,csv"]),
    "tissue_annotations": (True, ["--tissue-annotations"]),
    "mpp": (0.25, ["--mpp", "0.25"]),
    "force_mpp": (0.5, ["--force-mpp", "0.5"]),
    "slides": ("slides.csv", ["--slides", "slides.csv"]),
    "recompute": (True, ["--recompute"]),
    "full_hash": (True, ["--full-hash"]),
    "reader": ("openslide", ["--reader", "openslide"]),
    "tissue": (False, ["--no-tissue"]),
    "tissue_mask": ("masks", ["--tissue-mask", "masks"]),
    "regions": ("a.geojson", ["--regions", "a.geojson"]),
    "region_class": (("Tumor", "Stroma"), ["--region-class", "Tumor,Stroma"]),
    "region_exclude": (("Ignore*",), ["--region-exclude", "Ignore*"]),
    "region": (("1,2,3,4", "5,6,7,8"), ["--region", "1,2,3,4", "--region", "5,6,7,8"]),
    "allow_upsampling": (True, ["--allow-upsampling"]),
    "icc": (True, ["--icc"]),
    "stain_normalisation": ("macenko", ["--stain-normalisation", "macenko"]),
    "model": ("my model.pt", ["--model", "my model.pt"]),
    "precision": ("float16", ["--precision", "float16"]),
    "tta": (True, ["--tta"]),
    "runtime": ("torch", ["--runtime", "torch"]),
    "class_map": ("classes.toml", ["--class-map", "classes.toml"]),
    "set": (("p2=0.5", "min_area=30"), ["--set", "p2=0.5", "--set", "min_area=30"]),
    "min_score": (0.4, ["--min-score", "0.4"]),
    "trust_model": (True, ["--trust-model"]),
    "outline": ("pixel", ["--outline", "pixel"]),
    "simplify": (0.25, ["--simplify", "0.25"]),
    "keep_holes": (True, ["--keep-holes"]),
    "cell_expansion": (4.5, ["--cell-expansion", "4.5"]),
    "measurements": (("stain-od", "shape"), ["--measurements", "stain-od,shape"]),
    "stains": (("0.6", "0.7", "0.3", "0.2", "0.8", "0.5"), ["--stains", "0.6,0.7,0.3,0.2,0.8,0.5"]),
    "device": ("cuda:1", ["--device", "cuda:1"]),
    "devices": (("cuda:0", "cuda:1"), ["--devices", "cuda:0,cuda:1"]),
    "scheduler": ("tcp://host:8786", ["--scheduler", "tcp://host:8786"]),
    "batch": (3, ["--batch", "3"]),
    "block": (512, ["--block", "512"]),
    "threads": (77, ["--threads", "77"]),
    "tolerate_damage": (3, ["--tolerate-damage", "3"]),
    "retry": (2, ["--retry", "2"]),
    "fail_fast": (True, ["--fail-fast"]),
    "time_limit": (3600.0, ["--time-limit", "3600"]),
    "stall_timeout": (60.0, ["--stall-timeout", "60"]),
    "quiet": (True, ["--quiet"]),
    "json_log": ("events.jsonl", ["--json-log", "events.jsonl"]),
}
SPECS = list(option_specs())
OPTIONS = pytest.mark.parametrize("item", SPECS, ids=lambda item: item.name)


def parsed(*words: str) -> RunConfig:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return config_of(parser.parse_args(words))


def test_every_option_is_tried_here() -> None:
    assert [item.name for item in SPECS] == [field.name for field in dataclasses.fields(RunConfig)]
    assert set(OTHER) == {item.name for item in SPECS}
    assert all(OTHER[item.name][0] != item.default for item in SPECS)


@OPTIONS
def test_the_command_line_gives_every_option(item: OptionSpec) -> None:
    value, words = OTHER[item.name]
    assert parsed(*words) == replace(RunConfig(), **{item.name: value})


@OPTIONS
def test_a_file_gives_every_option_and_the_command_line_wins(item: OptionSpec, tmp_path: Path) -> None:
    value, words = OTHER[item.name]
    file = tmp_path / "run.toml"
    file.write_text(config_as_toml(replace(RunConfig(), **{item.name: value})))
    assert read_config(file) == parsed("--config", str(file)) == replace(RunConfig(), **{item.name: value})
    back = {bool: [f"--{'no-' if value else ''}{item.name.replace('_', '-')}"], tuple: None}.get(item.type)
    if item.name == "inputs":
        assert parsed("--config", str(file), "other.svs").inputs == ("other.svs",)
    elif item.type is bool:
        assert getattr(parsed("--config", str(file), *(back or ())), item.name) is (not value)
    elif item.optional:
        assert getattr(parsed("--config", str(file), words[0], "none"), item.name) is None
    else:
        file.write_text(config_as_toml(RunConfig()))
        assert getattr(parsed("--config", str(file), *words), item.name) == value


def words() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def configs() -> st.SearchStrategy[RunConfig]:
    positive = st.floats(1e-12, 1e12)
    return st.builds(
        RunConfig,
        inputs=st.lists(words(), max_size=3).map(tuple),
        out=st.none() | words(),
        model=words(),
        mpp=st.none() | st.floats(FINEST_MPP, COARSEST_MPP),
        tissue=st.booleans(),
        devices=st.lists(words(), max_size=2).map(tuple),
        set=st.lists(words(), max_size=2).map(tuple),
        min_score=st.none() | st.floats(0, 1),
        batch=st.none() | st.integers(1, 1024),
        retry=st.integers(0, 5),
        time_limit=st.none() | positive,
        json_log=st.none() | words(),
    )


@given(configs())
def test_what_is_written_is_read_back(config: RunConfig) -> None:
    text = config_as_toml(config)
    values = tomllib.loads(text)
    assert RunConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}) == config
    assert all(f"# {item.help}" in text for item in SPECS)


def test_the_printed_configuration_can_be_fed_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for _, given_words in OTHER.values() for word in given_words]
    assert main(["config", *words]) == 0
    file = tmp_path / "run.toml"
    file.write_text(capsys.readouterr().out)
    assert main(["config", "--config", str(file)]) == 0
    assert capsys.readouterr().out == file.read_text()
    assert read_config(file) == RunConfig(**{name: value for name, (value, _) in OTHER.items()})


WRONG = {str: 3, int: "many", float: "fast", bool: "yes", tuple: "a.svs"}


@OPTIONS
def test_a_wrong_type_is_named_with_file_and_key(item: OptionSpec, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    wrong = WRONG[item.type]
    file.write_text(f"{item.name} = {wrong if isinstance(wrong, int) else repr(wrong)}\n")
    with pytest.raises(UsageError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}, key '{item.name}'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 'x'", ["unknown key 'modle'", "model"]),
        ("fail-fast = true", ["unknown key 'fail-fast'", "fail_fast"]),
        ("[machine]\nthreads = 2", ["unknown key 'machine'"]),
        ("threads = 0", ["key 'threads' must be from 1 to 1024, not 0"]),
        ("batch = 99999999999999999999", ["key 'batch'", "32 bits"]),
        ("batch = 2000", ["key 'batch' must be from 1 to 1024, not 2000"]),
        ("block = 1", ["key 'block' must be from 16 to 65536, not 1"]),
        ("min_score = 1.5", ["key 'min_score' must be from 0 to 1, not 1.5"]),
        ("threads = true", ["key 'threads'", "expected int"]),
        ("batch = 2.0", ["key 'batch'", "expected int"]),
        ("mpp = 0", ["key 'mpp' must be from 0.05 to 20"]),
        ("mpp = nan", ["key 'mpp' must be a finite number"]),
        ("time_limit = inf", ["key 'time_limit' must be a finite number"]),
        ("retry = -1", ["key 'retry' must be from 0 to 100"]),
        (
            "precision = 'half'",
            ["key 'precision' must be one of auto, float32, tf32, bfloat16, float16, int8, not 'half'"],
        ),
        ("inputs = ['a', 3]", ["key 'inputs'", "expected str"]),
        ("threads = 2\nretry = = 3", ["not TOML", "line 2"]),
        ("threads", ["not TOML"]),
    ],
)
def test_a_bad_file_is_explained(
    text: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(file)
    assert str(file) in str(caught.value) and all(part in str(caught.value) for part in said)
    assert main(["run", "--config", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_is_no_text_or_not_there(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.toml"):
        read_config(file)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "0"], "--threads: must be from 1 to 1024, not 0"),
        (["--batch", "5000"], "--batch: must be from 1 to 1024, not 5000"),
        (["--block", "1"], "--block: must be from 16 to 65536, not 1"),
        (["--retry", "1000000000"], "--retry: must be from 0 to 100"),
        (["--threads", "two"], "--threads: must be a whole number, not 'two'"),
        (["--mpp", "-1"], "--mpp: must be from 0.05 to 20"),
        (["--mpp", "25"], "--mpp: must be from 0.05 to 20, not 25"),
        (["--retry", "1000000000"], "--retry: must be from 0 to 100"),
        (["--mpp", "nan"], "--mpp: must be a finite number"),
        (["--precision", "half"], "--precision: must be one of auto"),
        (["--threads", "none"], "--threads: must be a whole number"),
    ],
)
def test_a_bad_word_is_explained(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", *words])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_slides_and_folder_must_be_given_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--out", str(tmp_path)]) == 2
    assert "no slides" in capsys.readouterr().err
    assert main(["run", "a.svs"]) == 2
    assert "no output folder" in capsys.readouterr().err


def test_a_name_that_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="no Unicode"):
        config_as_toml(RunConfig(inputs=("caf\udce9.svs",)))


def full() -> RunConfig:
    return RunConfig(**{name: value for name, (value, _) in OTHER.items()})


def test_a_record_holds_the_whole_configuration() -> None:
    held = config_as_json(full())
    assert set(held) == set(OTHER)
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()} == {
        name: value for name, (value, _) in OTHER.items()
    }


def test_a_device_on_the_command_line_wins_over_devices_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('devices = ["cuda:0", "cuda:1"]\n')
    assert parsed("--config", str(file), "--device", "cpu").devices == ()
    assert parsed("--config", str(file)).devices == ("cuda:0", "cuda:1")
    assert parsed("--device", "cpu", "--devices", "cuda:0,cuda:1").devices == ("cuda:0", "cuda:1")


ALIASES = [(spec, alias) for spec in SPECS for alias in spec.aliases]


@pytest.mark.parametrize(("item", "alias"), ALIASES, ids=[alias for _, alias in ALIASES])
def test_former_names_still_work_and_name_the_present_one(
    item: OptionSpec, alias: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, words = OTHER[item.name]
    former = [f"--{alias.replace('_', '-')}", *words[1:]]
    assert getattr(parsed(*former), item.name) == value
    assert f"{former[0]} is deprecated; use {words[0]}" in capsys.readouterr().err
    file = tmp_path / "run.toml"
    file.write_text(
        config_as_toml(replace(RunConfig(), **{item.name: value})).replace(f"\n{item.name} =", f"\n{alias} =")
    )
    assert getattr(read_config(file), item.name) == value


def test_results_depend_on_the_options_that_say_so() -> None:
    assert set(result_settings(RunConfig())) >= {
        "set", "min_score", "tissue", "precision", "tta",
        "outline", "simplify", "keep_holes", "measurements", "stains", "cell_expansion",
    }  # fmt: skip


def test_the_former_writer_is_a_single_format(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('writer = "geojson"')
    assert read_config(file).format == ("geojson",)
