"""Where nuclix runs: an error at start on Windows, Apple GPUs by name, and completion in the shell."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from nuclix.engine.cli.completion import SHELLS
from nuclix.engine.cli.main import main
from nuclix.engine.errors import UsageError
from nuclix.engine.inference.device import choose_device, choose_precision, hardware_name


def test_windows_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["--help"]) == 2
    assert "WSL 2" in capsys.readouterr().err


def test_mps_is_a_device_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    assert device.type == "mps"
    assert choose_precision("auto", device) == torch.float32
    assert "Apple" in hardware_name(device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no Apple GPU"):
        choose_device("mps")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_names_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "nuclix" in script and "stall-timeout" in script and "evaluate" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = 'COMP_WORDS=(nuclix evalu); COMP_CWORD=1; _shtab_nuclix; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["evaluate"]
