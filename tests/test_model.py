"""Model files: what is written comes back, and every bad file is an error that says what to do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.errors import ModelError
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import CARD_NAME, find_model, load_model, model_hash, read_card, save_model
from nuclix.plugins.recipes.dist import DistRecipe

RECIPE = DistRecipe(n_feat=2, depth=1)
CARD = ModelCard(
    name="tiny µ",
    method="dist",
    scale=Scale(0.25),
    patch=PatchShape(64, 16, 4),
    maps=("distance",),
    postprocessor="dist",
    parameters={"p1": 0.5, "p2": 1, "connectivity": 4},
    classes=(ObjectClass("Nucleus", (1, 2, 3)),),
    training={"images": ["a", "b"], "licence": None},
    scores={"validation": {"mean": {"aji": 0.5}}},
)
TOML = """
name = "elsewhere"
method = "theirs"
maps = ["distance"]
postprocessor = "dist"
scale = { mpp = 0.5 }
patch = { size = 64, margin = 16 }
classes = [{ name = "Nucleus", color = [255, 0, 0] }]
parameters = { p1 = 0.5 }
"""


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return RECIPE.exported(RECIPE.network()).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    save_model(path, network(), CARD)
    return path


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A TorchScript file that nuclix did not write."""
    path = tmp_path / "stranger.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 1, 1)), str(path))
    return path


def with_card(source: Path, target: Path, text: str | bytes) -> Path:
    """Copy a model file with another card in it."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for item in before.infolist():
            content = before.read(item)
            after.writestr(item, text if item.filename.endswith(CARD_NAME) else content)
    return target


def card_values() -> dict[str, Any]:
    with_lists = json.loads(json.dumps(dataclasses.asdict(CARD)))
    return {"format": 1, **with_lists}


def test_what_is_saved_comes_back(saved: Path) -> None:
    loaded = load_model(saved)
    assert loaded.card == read_card(saved) == CARD
    assert loaded.sha256 == model_hash(saved) and len(loaded.sha256) == 64
    assert not list(saved.parent.glob("*.tmp"))


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 32, 48)])
def test_the_file_computes_what_the_network_does(saved: Path, shape: tuple[int, ...]) -> None:
    """For any batch and size, from bytes and floats; batch norms are folded, so equal up to rounding."""
    module, expected = load_model(saved).module, network()
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        maps = module(images)
        assert maps.dtype == torch.float32
        assert torch.allclose(maps, expected(images), atol=1e-5)
        assert torch.equal(maps, module(images.float()))


def test_autocast_reaches_into_the_file(saved: Path) -> None:
    module = load_model(saved).module
    images = torch.randint(0, 256, (1, 3, 64, 64))
    with torch.inference_mode():
        plain = module(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = module(images)
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    assert torch.allclose(plain, half, atol=0.05)


def test_saving_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    before = network().train()
    state = {name: value.clone() for name, value in before.state_dict().items()}
    save_model(tmp_path / "new folder" / "x.pt", before, CARD)
    assert before.training
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())


def test_a_network_that_diverged_is_not_written(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(saved.read_bytes())
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match=r"diverged.*lower --learning-rate"):
        save_model(path, broken, CARD)
    assert path.read_bytes() == saved.read_bytes() and len(list(tmp_path.iterdir())) == 1


def test_reading_a_card_imports_no_torch(saved: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nuclix.engine.inference.model_file import read_card; "
        "read_card(Path(sys.argv[1]))"
    )
    check = "; sys.exit(any(name in sys.modules for name in ('torch', 'numba', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code + check, str(saved)], check=False).returncode == 0


def test_a_toml_file_stands_in_for_a_card(stranger: Path) -> None:
    before = stranger.read_bytes()
    stranger.with_suffix(".toml").write_text(TOML)
    loaded = load_model(stranger)
    assert loaded.card.scale == Scale(0.5) and loaded.card.patch == PatchShape(64, 16, 16)
    assert loaded.card.classes == (ObjectClass("Nucleus", (255, 0, 0)),)
    first = loaded.sha256
    stranger.with_suffix(".toml").write_text(TOML + "# the scale matters as much as the weights\n")
    assert load_model(stranger).sha256 != first
    assert stranger.read_bytes() == before


def test_without_metadata_the_error_is_a_template_that_works(stranger: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no nuclix\.json.*stranger\.toml") as caught:
        read_card(stranger)
    text = str(caught.value)
    stranger.with_suffix(".toml").write_text(text[text.index("\n") + 1 :])
    assert read_card(stranger).maps == ("distance",)


def test_the_card_inside_counts_more_than_a_toml_beside(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.pt"
    path.write_bytes(saved.read_bytes())
    path.with_suffix(".toml").write_text(TOML)
    assert read_card(path) == CARD
    assert model_hash(path) == model_hash(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has the format 2; this version reads 1"),
        ({"format": None}, "has the format None"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"name": 3}, r"key 'name': expected str, found 3"),
        ({"scale": 0.25}, r"key 'scale': expected a table"),
        ({"scale": {"mpp": -1}}, r"key 'scale': a scale must be a positive number"),
        ({"scale": {"mpp": True}}, r"key 'mpp': expected float, found True"),
        ({"scale": {"mpp": "0.25"}}, r"key 'mpp': expected float, found '0\.25'"),
        ({"patch": {"size": 64}}, r"key 'patch': missing key 'margin'"),
        ({"patch": {"size": 64, "margin": 40}}, r"no middle inside a margin of 40"),
        ({"patch": {"size": 1e999, "margin": 4}}, r"key 'size': expected int"),
        ({"maps": "distance"}, r"key 'maps': expected a list"),
        ({"maps": []}, "at least one entry in maps"),
        ({"classes": [{"name": "n", "color": [1, 2]}]}, r"expected 3 values, found 2"),
        ({"classes": [{"name": "n", "color": [1, 2, 3]}] * 2, "class_maps": ["a", "b"]}, r"classes name 'n' 2 times"),
        ({"classes": [{"name": " ", "color": [1, 2, 3]}]}, r"classes hold an empty name"),
        ({"classes": [{"name": "n", "color": [1, 2, 300]}]}, r"three numbers in 0\.\.255"),
        ({"classes": []}, "at least one entry in maps and in classes"),
        ({"parameters": [1]}, r"key 'parameters': expected a table"),
    ],
    ids=str,
)
def test_a_bad_card_is_an_error_that_names_the_key(
    saved: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = with_card(saved, tmp_path / "bad.pt", json.dumps(card_values() | change))
    with pytest.raises(ModelError, match=message) as caught:
        read_card(path)
    assert "bad.pt" in str(caught.value)


@pytest.mark.parametrize("key", ["name", "method", "scale", "patch", "maps", "postprocessor", "classes"])
def test_a_missing_key_is_named(saved: Path, tmp_path: Path, key: str) -> None:
    values = card_values()
    del values[key]
    with pytest.raises(ModelError, match=f"missing key '{key}'"):
        read_card(with_card(saved, tmp_path / "bad.pt", json.dumps(values)))


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]", b"3", b"[" * 100_000], ids=lambda text: repr(text[:4]))
def test_a_broken_card_is_an_error(saved: Path, tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ModelError, match=CARD_NAME):
        read_card(with_card(saved, tmp_path / "bad.pt", text))


def test_a_card_as_large_as_a_bomb_is_not_read(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="larger than"):
        read_card(with_card(saved, tmp_path / "bad.pt", b" " * (2 << 20)))


def test_files_that_are_no_models(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ModelError, match="can't be read"):
        read_card(path)
    for content in (b"", b"hello", saved.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is not TorchScript"):
            load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "dear")
    with pytest.raises(ModelError, match="zip file but not TorchScript"):
        load_model(path)
    with pytest.raises(ModelError, match="can't be read"):
        read_card(tmp_path)


def test_a_pickled_checkpoint_is_not_a_model_and_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path, str]]:
            return (Path.write_text, (tmp_path / "ran", "boom"))

    torch.save(Bomb(), tmp_path / "pickle.pt")
    with pytest.raises(ModelError, match="not TorchScript"):
        load_model(tmp_path / "pickle.pt")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_network_is_an_error(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w") as after:
        for item in before.infolist():
            if "/code/" not in item.filename:
                after.writestr(item, before.read(item))
    with pytest.raises(ModelError, match="torch can't load"):
        load_model(path)


@pytest.mark.parametrize("text", ["name = ", "name = 1\n", "format = 7\n"])
def test_a_bad_toml_is_an_error_with_its_name(stranger: Path, text: str) -> None:
    stranger.with_suffix(".toml").write_text(text)
    with pytest.raises(ModelError, match=r"stranger\.toml"):
        read_card(stranger)


def test_models_are_found_by_name_and_by_path(saved: Path) -> None:
    assert find_model(saved) == saved
    assert find_model(str(saved)) == saved
    with pytest.raises(ModelError, match=r"no model 'nonesuch'.*dist-kumar16"):
        find_model("nonesuch")
