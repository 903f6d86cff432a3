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
from nuclix.engine.config import (
    RunConfig,
    Setup,
    batch_options,
    config_as_json,
    config_as_toml,
    read_config,
    run_settings,
    setup,
)
from nuclix.engine.errors import UsageError
from nuclix.engine.record import settings_as_json
from nuclix.engine.settings import RunSettings

# A value of each option that is not its default, with the words that give it on the command line.
OTHER: dict[str, tuple[Any, list[str]]] = {
    "inputs": (("a.svs", "b c.svs"), ["a.svs", "b c.svs"]),
    "out": ("results", ["--out", "results"]),
    "writer": ("zip", ["--writer", "zip"]),
    "mpp": (0.25, ["--mpp", "0.25"]),
    "tissue": (False, ["--no-tissue"]),
    "model": ("my model.pt", ["--model", "my model.pt"]),
    "precision": ("float16", ["--precision", "float16"]),
    "flips": (True, ["--flips"]),
    "device": ("cuda:1", ["--device", "cuda:1"]),
    "devices": (("cuda:0", "cuda:1"), ["--devices", "cuda:0,cuda:1"]),
    "scheduler": ("tcp://host:8786", ["--scheduler", "tcp://host:8786"]),
    "batch": (3, ["--batch", "3"]),
    "block": (512, ["--block", "512"]),
    "workers": (77, ["--workers", "77"]),
    "retry": (2, ["--retry", "2"]),
    "fail_fast": (True, ["--fail-fast"]),
    "time_limit": (3600.0, ["--time-limit", "3600"]),
    "patience": (60.0, ["--patience", "60"]),
    "quiet": (True, ["--quiet"]),
    "json_log": ("events.jsonl", ["--json-log", "events.jsonl"]),
}
SETUPS = list(setup())
OPTIONS = pytest.mark.parametrize("item", SETUPS, ids=lambda item: item.name)


def parsed(*words: str) -> RunConfig:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return config_of(parser.parse_args(words))


def test_every_option_is_tried_here() -> None:
    assert [item.name for item in SETUPS] == [field.name for field in dataclasses.fields(RunConfig)]
    assert set(OTHER) == {item.name for item in SETUPS}
    assert all(OTHER[item.name][0] != item.default for item in SETUPS)


@OPTIONS
def test_the_command_line_gives_every_option(item: Setup) -> None:
    value, words = OTHER[item.name]
    assert parsed(*words) == replace(RunConfig(), **{item.name: value})


@OPTIONS
def test_a_file_gives_every_option_and_the_command_line_wins(item: Setup, tmp_path: Path) -> None:
    value, words = OTHER[item.name]
    file = tmp_path / "run.toml"
    file.write_text(config_as_toml(replace(RunConfig(), **{item.name: value})))
    assert read_config(file) == parsed("--config", str(file)) == replace(RunConfig(), **{item.name: value})
    back = {bool: [f"--{'no-' if value else ''}{item.name.replace('_', '-')}"], tuple: None}.get(item.type)
    if item.name == "inputs":
        assert parsed("--config", str(file), "other.svs").inputs == ("other.svs",)
    elif item.optional:
        assert getattr(parsed("--config", str(file), words[0], "none"), item.name) is None
    elif item.type is bool:
        assert getattr(parsed("--config", str(file), *(back or ())), item.name) is item.default
    else:
        file.write_text(config_as_toml(RunConfig()))
        assert getattr(parsed("--config", str(file), *words), item.name) == value


def words() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def configs() -> st.SearchStrategy[RunConfig]:
    positive = st.floats(1e-12, 1e12)
    return st.builds(
        RunConfig,
        inputs=st.lists(words(), max_size=3).map(tuple),
        out=st.none() | words(),
        model=words(),
        mpp=st.none() | positive,
        tissue=st.booleans(),
        devices=st.lists(words(), max_size=2).map(tuple),
        batch=st.none() | st.integers(1, 10**9),
        retry=st.integers(0, 5),
        time_limit=st.none() | positive,
        json_log=st.none() | words(),
    )


@given(configs())
def test_what_is_written_is_read_back(config: RunConfig) -> None:
    text = config_as_toml(config)
    values = tomllib.loads(text)
    assert RunConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}) == config
    assert all(f"# {item.option.help}" in text for item in SETUPS)


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
def test_a_wrong_type_is_named_with_file_and_key(item: Setup, tmp_path: Path) -> None:
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
        ("[machine]\nworkers = 2", ["unknown key 'machine'"]),
        ("workers = 0", ["key 'workers' must be 1 or more, not 0"]),
        ("workers = true", ["key 'workers'", "expected int"]),
        ("batch = 2.0", ["key 'batch'", "expected int"]),
        ("mpp = 0", ["key 'mpp' must be more than 0"]),
        ("mpp = nan", ["key 'mpp' must be a finite number"]),
        ("time_limit = inf", ["key 'time_limit' must be a finite number"]),
        ("retry = -1", ["key 'retry' must be 0 or more"]),
        ("precision = 'half'", ["key 'precision' must be one of auto, float32, bfloat16, float16, not 'half'"]),
        ("inputs = ['a', 3]", ["key 'inputs'", "expected str"]),
        ("workers = 2\nretry = = 3", ["not TOML", "line 2"]),
        ("workers", ["not TOML"]),
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
        (["--workers", "0"], "--workers: must be 1 or more"),
        (["--workers", "two"], "--workers: must be a whole number, not 'two'"),
        (["--mpp", "-1"], "--mpp: must be more than 0"),
        (["--mpp", "nan"], "--mpp: must be a finite number"),
        (["--precision", "half"], "--precision: must be one of auto"),
        (["--workers", "none"], "--workers: must be a whole number"),
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


def test_the_run_gets_what_was_configured() -> None:
    settings, options = run_settings(full()), batch_options(full())
    for target in (settings, options):
        for field in dataclasses.fields(target):
            if field.name in ("config", "out"):
                continue
            assert getattr(target, field.name) == OTHER[field.name][0], field.name
    assert settings.out == Path("results")
    assert batch_options(RunConfig(device="cpu")).devices == ("cpu",)


def test_defaults_are_the_same_everywhere() -> None:
    settings = run_settings(RunConfig(inputs=("a",), out="o"))
    assert replace(settings, config={}, workers=1) == RunSettings(Path("o"))
    options = batch_options(RunConfig())
    assert options == type(options)()


def test_a_record_holds_the_whole_configuration() -> None:
    held = settings_as_json(run_settings(full()))
    assert held == config_as_json(full())
    assert set(held) == set(OTHER)
