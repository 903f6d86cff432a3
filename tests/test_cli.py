"""The command line's frame: help, version, and what becomes of an exception."""

from __future__ import annotations

import argparse
import errno
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from nuclix.engine import errors
from nuclix.engine.cli.main import COMMANDS, build_parser, guarded, main

NUCLIX = [sys.executable, "-m", "nuclix.engine.cli"]


def nuclix(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NUCLIX, *args], capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_the_installed_script_is_this_command_line() -> None:
    script = Path(sys.executable).with_name("nuclix")
    if not script.exists():
        pytest.skip("nuclix is importable here without its script being installed")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"nuclix {version('nuclix')}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\w", shown, re.MULTILINE), f"{name} has no line of help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"usage: nuclix {name}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["plugins", "--nonsense"], ["--versio-n"]])
def test_wrong_usage_is_exit_code_2_and_one_message(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: nuclix")
    assert "error: " in shown.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (errors.SlideError("a.svs: not a slide"), 1, "nuclix: error: a.svs: not a slide"),
        (errors.ModelError("m.pt: no card"), 1, "nuclix: error: m.pt: no card"),
        (errors.UsageError("--block must be positive"), 2, "nuclix: error: --block must be positive"),
        (KeyboardInterrupt(), 130, "nuclix: interrupted"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.svs"), 1, "nuclix: error: x.svs: No such"),
    ],
)
def test_what_a_user_can_act_on_is_one_line(
    raised: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: argparse.Namespace) -> int:
        raise raised

    assert guarded(command, argparse.Namespace()) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("raised", [ZeroDivisionError("division by zero"), OSError("without a file")])
def test_a_bug_shows_its_traceback_and_asks_for_a_report(raised: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def buggy(_: argparse.Namespace) -> int:
        raise raised

    assert guarded(buggy, argparse.Namespace()) == 70
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "in buggy" in shown
    assert "please report" in shown.splitlines()[-1]


def test_every_error_on_purpose_has_one_base() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, errors.NuclixError) for kind in kinds)


def test_a_command_says_its_own_exit_code() -> None:
    assert guarded(lambda _: 0, argparse.Namespace()) == 0
    assert guarded(lambda _: 1, argparse.Namespace()) == 1


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)  # whoever listened has gone before the first line
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run([*NUCLIX, "plugins"], stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.stderr == b""
    assert done.returncode == 141


def test_plugins_lists_the_built_ins_without_importing_them() -> None:
    done = nuclix("plugins", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "slide readers (nuclix.readers)" in done.stdout
    assert re.search(r"^  image +nuclix \S+ +nuclix\.plugins\.readers\.image:ImageReader$", done.stdout, re.MULTILINE)
    assert "nuclix.plugins" not in done.stderr


def test_parser_can_be_built_twice() -> None:
    assert build_parser().parse_args(["plugins"]).check is False
    assert build_parser().parse_args(["plugins", "--check"]).check is True
