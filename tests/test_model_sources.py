"""ONNX files, archives of torch.export and OpenVINO give the maps and the nuclei that TorchScript in PyTorch gives."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from end_to_end import make_model, make_slide
from nuclix.engine.cli import main
from nuclix.engine.errors import ModelError, PluginError
from nuclix.engine.inference.device import choose_device
from nuclix.engine.inference.model_file import load_model, model_hash, read_card
from nuclix.engine.inference.model_source import ModelSource, choose_source, source_of
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.preparation import open_network
from nuclix.plugins.model_sources.exported import ExportedSource, checked_export
from nuclix.plugins.model_sources.onnx import OnnxSource, check_weights_inside
from nuclix.plugins.model_sources.openvino import OpenVinoSource

CARD: dict[str, Any] = {
    "format": 1,
    "name": "red",
    "method": "test",
    "scale": {"mpp": 0.25},
    "patch": {"size": 64, "margin": 16, "multiple": 16},
    "maps": ["distance"],
    "postprocessor": "dist",
    "parameters": {"p1": 0.5, "p2": 1.0},
    "classes": [{"name": "Nucleus", "color": [255, 0, 0]}],
    "input": {"dtype": "float32"},
    "outputs": [{"key": "map"}],
}


def make_onnx(path: Path, card: dict[str, Any] | None = None) -> Path:
    """Write a network of (255 - red) / 16, as `make_model` does, with a second output that nobody wants."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Slice", ["x", "begin", "end", "axis"], ["red"]),
        helper.make_node("Sub", ["white", "red"], ["dark"]),
        helper.make_node("Div", ["dark", "sixteen"], ["map"]),
    ]
    shape = ["batch", 3, "height", "width"]
    constants = [("begin", [0], np.int64), ("end", [1], np.int64), ("axis", [1], np.int64)]
    constants += [("white", 255, np.float32), ("sixteen", 16, np.float32)]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("x", numbers.FLOAT, shape)],
        [helper.make_tensor_value_info(name, numbers.FLOAT, ["batch", 1, "h", "w"]) for name in ("dark", "map")],
        [onnx.numpy_helper.from_array(np.array(value, dtype), name) for name, value, dtype in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if card is not None:
        helper.set_model_props(model, {"other": "x", "nuclix.json": json.dumps(card)})
    onnx.save(model, str(path))
    return path


class Red(torch.nn.Module):
    """(255 - red) / 16, as `make_model` does, next to another output."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        dark = 255 - images[:, :1]
        return {"dark": dark, "map": dark / 16}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of torch.export with a card inside, for batches of 1 or 2 patches of any size."""
    path = tmp_path_factory.mktemp("exported") / "red.pt2"
    auto = torch.export.Dim.AUTO
    program = torch.export.export(Red(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    torch.export.save(program, path, extra_files={"nuclix.json": json.dumps(CARD)})
    return path


def maps_of(path: Path, runtime: str = "auto") -> np.ndarray:
    device = choose_device("cpu")
    model = load_model(path, runtime=runtime)
    predictor = Predictor(model, InferenceSettings(device, torch.float32, 1))
    return predictor([np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])


def test_an_onnx_file_with_its_card_inside(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "red.onnx", CARD)
    assert source_of(path) is OnnxSource
    assert read_card(path).outputs[0].key == "map"
    np.testing.assert_allclose(maps_of(path), maps_of(make_model(tmp_path / "red.pt")), rtol=1e-6)


def test_an_onnx_file_with_its_card_beside_it(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "red.onnx")
    with pytest.raises(ModelError, match=r"red\.toml"):
        read_card(path)
    path.with_suffix(".toml").write_text(
        'name = "red"\nmethod = "t"\nscale = { mpp = 0.25 }\npatch = { size = 64, margin = 16, multiple = 16 }\n'
        'maps = ["distance"]\npostprocessor = "dist"\nparameters = {}\noutputs = [{ key = "1" }]\n'
        'classes = [{ name = "N", color = [1, 2, 3] }]\ninput = { dtype = "float32" }\n'
    )
    assert read_card(path).name == "red"
    np.testing.assert_allclose(maps_of(path), maps_of(make_model(tmp_path / "red.pt")), rtol=1e-6)
    before = model_hash(path)
    path.with_suffix(".toml").write_text(path.with_suffix(".toml").read_text() + "# more\n")
    assert model_hash(path) != before


def nuclei(out: Path) -> list[Any]:
    features = json.loads((out / "slide.geojson").read_text())["features"]
    return [feature["geometry"] for feature in features]


@pytest.mark.parametrize("kind", ["onnx", "openvino", "exported"])
def test_a_run_finds_the_same_nuclei(tmp_path: Path, kind: str, exported: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "exported": "torch"}[kind])
    slide, torchscript = make_slide(tmp_path / "slide.tif"), make_model(tmp_path / "red.pt")
    command = ["run", str(slide), "--threads", "1", "--device", "cpu", "--quiet", "--precision", "float32"]
    assert main([*command, "--model", str(torchscript), "--out", str(tmp_path / "torch")]) == 0
    other = {"exported": exported, "openvino": torchscript}.get(kind) or make_onnx(tmp_path / "red.onnx", CARD)
    more = ["--runtime", "openvino"] if kind == "openvino" else []
    assert main([*command, "--model", str(other), *more, "--out", str(tmp_path / "other")]) == 0
    assert nuclei(tmp_path / "other") == nuclei(tmp_path / "torch")
    assert len(nuclei(tmp_path / "other")) > 50


def test_sources_follow_the_contract() -> None:
    assert isinstance(OnnxSource(), ModelSource)
    assert isinstance(OpenVinoSource(), ModelSource)
    assert isinstance(ExportedSource(), ModelSource)


def test_a_file_runs_where_it_can(tmp_path: Path) -> None:
    path, torchscript = make_onnx(tmp_path / "red.onnx", CARD), make_model(tmp_path / "red.pt")
    assert choose_source(torchscript, "auto") is None
    assert choose_source(torchscript, "torch") is None
    assert choose_source(torchscript, "openvino") is OpenVinoSource
    assert choose_source(path, "onnx") is OnnxSource
    for runtime in ("torch", "openvino"):
        with pytest.raises(ModelError, match="not TorchScript"):
            choose_source(path, runtime)
    with pytest.raises(PluginError, match="tensorrt"):
        choose_source(path, "tensorrt")


@pytest.mark.parametrize("content", [b"", b"\x08", b"PK\x03\x04", b"\x08\x09\xff", b"name"])
def test_files_that_are_not_onnx_are_not_recognised(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert not OnnxSource.recognises(path)
    assert not OnnxSource.recognises(tmp_path / "missing.onnx")


def field(number: int, content: bytes) -> bytes:
    """Return a field of a serialised message, of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def test_an_onnx_file_with_weights_in_other_files_is_refused(tmp_path: Path) -> None:
    place = field(13, field(1, b"location") + field(2, b"../../secret"))
    version, graph, tensor = b"\x08\x09", 7, 5
    inside = version + field(graph, field(tensor, field(8, b"weight")))
    check_weights_inside(inside, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="keeps its weights in other files"):
        check_weights_inside(version + field(graph, field(tensor, place)), tmp_path / "a.onnx")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_half_an_onnx_file_is_an_error_that_names_it(tmp_path: Path, share: float) -> None:
    content = make_onnx(tmp_path / "red.onnx", CARD).read_bytes()
    path = tmp_path / "half.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="half"):
        load_model(path)


def test_a_missing_library_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, torchscript = make_onnx(tmp_path / "red.onnx", CARD), make_model(tmp_path / "red.pt")
    for name, file, runtime in (("onnxruntime", path, "auto"), ("openvino", torchscript, "openvino")):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(ModelError, match=f"pip install {name}"):
            open_network(file, RunConfig(runtime=runtime, device="cpu"))


# ---- archives of torch.export ----


def altered(path: Path, entry: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return an archive in which one entry is another."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(entry) else content)
    return buffer.getvalue()


def test_an_exported_program_gives_the_maps_of_torchscript(tmp_path: Path, exported: Path) -> None:
    assert source_of(exported) is ExportedSource
    assert source_of(make_model(tmp_path / "red.pt")) is None
    assert read_card(exported).outputs[0].key == "map"
    np.testing.assert_allclose(maps_of(exported), maps_of(tmp_path / "red.pt"), rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"torch.ops.aten.div.Tensor", b"torch.ops.aten.from_file.default", "from_file"),
        (b"torch.ops.aten.div.Tensor", b"torch.hub.load", "hub"),
        (b"torch.ops.aten.div.Tensor", b"#extension", "extension"),
        (b'"name": "images"', b'"name": "images):import os#"', "import os"),
        (b"builtins.tuple", b"collections.defaultdict", "defaultdict"),
    ],
    ids=["file", "hub", "extension", "name", "container"],
)
def test_an_exported_program_that_does_more_is_refused(exported: Path, old: bytes, new: bytes, named: str) -> None:
    content = altered(exported, "models/model.json", lambda text: text.replace(old, new))
    with pytest.raises(ModelError, match=named):
        checked_export(content, "a.pt2")


def test_trust_does_not_apply_to_an_exported_program(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(altered(exported, "models/model.json", lambda text: text.replace(b"aten.div", b"aten.from_file")))
    with pytest.raises(ModelError, match="--trust-model is for TorchScript"):
        ExportedSource.load(path, read_card(exported), "cpu", trust=True)


def test_onnx_runtime_names_the_sizes_that_do_not_fit(tmp_path: Path) -> None:
    network = load_model(make_onnx(tmp_path / "a.onnx", CARD)).module
    with pytest.raises(RuntimeError, match=r"batch of 1 x 5 x 64 x 64: .*--batch"):
        network.network(torch.zeros(1, 5, 64, 64))


@pytest.mark.parametrize("size", ["__import__('os').getcwd()", "Symbol('s0').a", "open", "Max(1, print(2))"])
def test_sizes_that_are_more_than_arithmetic_are_refused(exported: Path, size: str) -> None:
    def change(text: bytes) -> bytes:
        return json.dumps({**json.loads(text), "extra": {"expr_str": size}}).encode()

    with pytest.raises(ModelError, match="uses"):
        checked_export(altered(exported, "models/model.json", change), "a.pt2")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def test_what_an_archive_would_run_when_it_is_loaded_is_left_out(tmp_path: Path, exported: Path) -> None:
    content = altered(exported, "sample_inputs/model.pt", lambda _: pickle.dumps(Evil()))
    (tmp_path / "a.pt2").write_bytes(content)
    guarded = altered(
        tmp_path / "a.pt2",
        "models/model.json",
        lambda text: json.dumps({**json.loads(text), "guards_code": ["__import__('os').abort()"]}).encode(),
    )
    (tmp_path / "a.pt2").write_bytes(guarded)
    np.testing.assert_array_equal(maps_of(tmp_path / "a.pt2"), maps_of(exported))


def test_pickled_weights_are_refused(exported: Path) -> None:
    config = json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}).encode()
    with pytest.raises(ModelError, match="pickle"):
        checked_export(altered(exported, "model_weights_config.json", lambda _: config), "a.pt2")


@pytest.mark.parametrize("kind", ["onnx", "exported"])
def test_pack_writes_the_card_into_the_file(tmp_path: Path, kind: str, exported: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = exported if kind == "exported" else make_onnx(tmp_path / "red.onnx")
    out = tmp_path / f"packed{network.suffix}"
    (tmp_path / "card.toml").write_text(
        'name = "mine"\nmethod = "t"\nscale = { mpp = 0.25 }\npatch = { size = 64, multiple = 16 }\n'
        'maps = ["distance"]\npostprocessor = "dist"\nparameters = {}\noutputs = [{ key = "map" }]\n'
        'classes = [{ name = "N", color = [1, 2, 3] }]\ninput = { dtype = "float32" }\n'
    )
    command = ["pack", str(network), "--card", str(tmp_path / "card.toml"), "--out"]
    assert main([*command, str(tmp_path / "packed.pt")]) == 1
    assert main([*command, str(out)]) == 0
    assert (read_card(out).name, read_card(out).patch.margin) == ("mine", 0)
    expected = maps_of(exported)
    np.testing.assert_allclose(maps_of(out)[..., 16:-16, 16:-16], expected, rtol=1e-6)
