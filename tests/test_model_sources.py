"""ONNX files and OpenVINO give the maps and the nuclei that TorchScript in PyTorch gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from end_to_end import make_model, make_slide
from nuclix.engine.cli import main
from nuclix.engine.errors import DeviceError, ModelError, PluginError
from nuclix.engine.inference.device import choose_device
from nuclix.engine.inference.model_file import load_model, model_hash, read_card
from nuclix.engine.inference.model_source import ModelSource, choose_source, source_of
from nuclix.engine.inference.predictor import InferenceSettings, Predictor
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


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_run_finds_the_same_nuclei(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    slide, torchscript = make_slide(tmp_path / "slide.tif"), make_model(tmp_path / "red.pt")
    command = ["run", str(slide), "--threads", "1", "--device", "cpu", "--quiet", "--precision", "float32"]
    assert main([*command, "--model", str(torchscript), "--out", str(tmp_path / "torch")]) == 0
    other = make_onnx(tmp_path / "red.onnx", CARD) if kind == "onnx" else torchscript
    more = [] if kind == "onnx" else ["--runtime", "openvino"]
    assert main([*command, "--model", str(other), *more, "--out", str(tmp_path / "other")]) == 0
    assert nuclei(tmp_path / "other") == nuclei(tmp_path / "torch")
    assert len(nuclei(tmp_path / "other")) > 50


def test_openvino_runs_torchscript_as_pytorch_does(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = make_model(tmp_path / "red.pt")
    np.testing.assert_allclose(maps_of(path, "openvino"), maps_of(path, "torch"), atol=1e-6)
    with pytest.raises(DeviceError, match="cuda"):
        load_model(path, "cuda", runtime="openvino")


def test_sources_follow_the_contract() -> None:
    assert isinstance(OnnxSource(), ModelSource)
    assert isinstance(OpenVinoSource(), ModelSource)


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
            load_model(file, runtime=runtime)
