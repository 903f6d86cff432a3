"""A model file's program is read before it is loaded: what does more than compute is refused, with its name."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from nuclix.engine.errors import ModelError
from nuclix.engine.inference.model_code import OPERATORS, checked_archive
from nuclix.engine.inference.model_file import find_model, load_model
from nuclix.engine.registry import WEIGHTS, names
from test_model import TOML

HARMLESS = """
def forward(self, x: Tensor) -> Tensor:
    return (x.float() - 128).mean(1, keepdim=True).clamp(0, 1)
"""


def scripted(path: Path, code: str) -> Path:
    """Save a module whose methods are given as TorchScript source."""
    module = type("Stranger", (torch.nn.Module,), {})()  # a class of its own: methods are defined once a class
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(module)
        script.define(code)
        torch.jit.save(script, str(path))
    path.with_suffix(".toml").write_text(TOML)
    return path


def edited(source: Path, target: Path, code: str) -> Path:
    """Copy a model file with other source in it, as only a hand can write it."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for item in before.infolist():
            content = before.read(item)
            if item.filename.endswith(".py"):
                head = content.decode().partition("  def forward")[0]
                content = (head + code).encode()
            if not item.filename.endswith(".debug_pkl"):
                after.writestr(item.filename, content)
    target.with_suffix(".toml").write_text(TOML)
    return target


@pytest.mark.parametrize("name", names(WEIGHTS))
def test_the_shipped_models_pass_and_compute_the_same(name: str) -> None:
    path = find_model(name)
    checked, trusted = load_model(path), load_model(path, trust=True)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(checked.module(images), trusted.module(images))
    assert checked.sha256 == trusted.sha256


def test_a_harmless_program_of_a_stranger_passes(tmp_path: Path) -> None:
    loaded = load_model(scripted(tmp_path / "x.pt", HARMLESS))
    assert loaded.module(torch.full((1, 3, 4, 4), 255)).max() == 1


VICTIM = "{victim}"
HARMFUL = {
    "torch.from_file": 'return torch.from_file("{victim}", True, 5) + x.sum()',
    "torch.save": 'torch.save(x, "{victim}")\n    return x',
    "print": "print(x)\n    return x",
}


@pytest.mark.parametrize("operator", HARMFUL)
def test_files_and_output_are_refused_by_name_before_anything_runs(tmp_path: Path, operator: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    code = "\ndef forward(self, x: Tensor) -> Tensor:\n    " + HARMFUL[operator].format(victim=victim) + "\n"
    path = scripted(tmp_path / "x.pt", code)
    with pytest.raises(ModelError, match=rf"x\.pt.*uses {operator},.*--trust-model"):
        load_model(path)
    assert victim.read_text() == "precious"
    assert load_model(path, trust=True).card.name == "elsewhere"


HAND_WRITTEN = {
    "from_file": 'return "{victim}".from_file(True, 5)',
    "torch": "t = torch\n    return x",
    "ops.aten.from_file": 'return ops.aten.from_file("{victim}", True, 5)',
    "__torch__.torch.classes.x.Y": 'y = __torch__.torch.classes.x.Y("{victim}")\n    return x',
    "save": 'x.save("{victim}")\n    return x',
    "hidden": "hidden(x)\n    return x",
}


@pytest.mark.parametrize("operator", HAND_WRITTEN)
def test_source_that_no_compiler_writes_is_no_way_around(tmp_path: Path, operator: str) -> None:
    code = "  def save(self, x: Tensor) -> Tensor:\n    return x\n" if operator == "save" else ""
    code += (
        "  def forward(self, x: Tensor) -> Tensor:\n    " + HAND_WRITTEN[operator].format(victim=tmp_path / "v") + "\n"
    )
    path = edited(scripted(tmp_path / "a.pt", HARMLESS), tmp_path / "b.pt", code)
    with pytest.raises(ModelError, match=f"uses {operator},"):
        load_model(path)


def test_what_is_loaded_is_what_was_read(tmp_path: Path) -> None:
    """Comments and second entries, which another reader may take for code, are not in the archive that is loaded."""
    path = scripted(tmp_path / "a.pt", HARMLESS)
    code = "  def forward(self, x: Tensor) -> Tensor: # torch.save(x)\n    return x\n"
    archive = checked_archive(edited(path, tmp_path / "b.pt", code).read_bytes(), "b.pt")
    with zipfile.ZipFile(io.BytesIO(archive)) as checked:
        assert not any(b"save" in checked.read(name) for name in checked.namelist())
    with zipfile.ZipFile(path, "a") as twice, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice.writestr(next(name for name in twice.namelist() if name.endswith(".py")), "import os\n")
    with pytest.raises(ModelError, match="two files of one name"):
        load_model(path)


@pytest.mark.parametrize("damage", ["code", "flatbuffer", "pickle"])
def test_what_can_not_be_checked_is_refused(tmp_path: Path, damage: str) -> None:
    path = scripted(tmp_path / "a.pt", HARMLESS)
    if damage == "code":
        path = edited(path, tmp_path / "b.pt", "  def forward(self x\n")
    elif damage == "flatbuffer":
        path.write_bytes(b"PTMF" + path.read_bytes())
    else:
        with zipfile.ZipFile(path) as before, zipfile.ZipFile(tmp_path / "b.pt", "w") as after:
            for name in before.namelist():
                content = before.read(name)
                after.writestr(name, b"\xff" + content if name.endswith("data.pkl") else content)
        path = tmp_path / "b.pt"
        path.with_suffix(".toml").write_text(TOML)
    with pytest.raises(ModelError, match=r"can't be read|is not TorchScript|is damaged"):
        load_model(path)


def test_the_list_names_operators_of_this_pytorch() -> None:
    known = {schema.name.partition("::")[2] for schema in torch._C._jit_get_all_schemas()}
    assert known >= OPERATORS
    assert not OPERATORS & {"from_file", "save", "load", "set_", "resize_", "as_strided", "wait", "fork"}
