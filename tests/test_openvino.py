"""Networks for OpenVINO inside model files: the same maps and nuclei, stored once, refused where they do not belong."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from end_to_end import config_for, make_model, make_slide, nuclix_here, results
from nuclix.engine.errors import DeviceError, ModelError, UsageError
from nuclix.engine.inference import device
from nuclix.engine.inference.embedded import NetworkFiles, read_network, write_networks
from nuclix.engine.inference.model_file import find_model, load_model, read_card, replace_card, save_model
from nuclix.engine.inference.prediction_cache import PredictionCache
from nuclix.engine.inference.runtime import ArrayRuntime, resolve_runtime
from nuclix.engine.model_card import ModelCard
from nuclix.engine.segmentation import pack_runtime
from nuclix.engine.segmentation.pack_runtime import add_runtime
from nuclix.engine.segmentation.preparation import open_network
from nuclix.plugins.model_sources._openvino_graph import check_graph
from nuclix.plugins.model_sources._openvino_pack import network_files
from nuclix.plugins.model_sources.openvino import OpenVinoSource

openvino = pytest.importorskip("openvino")


class Filtered(torch.nn.Module):
    """A map of a few convolutions, with weights that are worth storing once."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(48, 1, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = (255 - images[:, :1].float()) / 16
        return red + 0.1 * self.layers(images.float() / 255)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    return read_card(make_model(tmp_path_factory.mktemp("card") / "red.pt"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> Path:
    path = tmp_path_factory.mktemp("plain") / "filtered.pt"
    save_model(path, Filtered(), card)
    return path


@pytest.fixture(scope="module")
def packed(plain: Path) -> Path:
    path = plain.with_name("packed.pt")
    add_runtime(plain, path, "openvino", patches(1)[0])
    return path


def patches(count: int, size: int = 64) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


def maps_of(path: Path, count: int = 5, threads: int = 1, **options: Any) -> np.ndarray:
    config = replace(config_for(path.parent, path), **options)
    predictor = open_network(path, config, threads).predictor
    waiting = [predictor.submit([patch]) for patch in patches(count, predictor.patch.size)]
    return np.concatenate([wait() for wait in waiting])


def altered(path: Path, out: Path, entry: str, change: Callable[[bytes], bytes]) -> Path:
    """Write a copy of a model file in which one entry is another."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename.endswith(entry) else content)
    return out


def test_the_maps_are_those_of_pytorch(plain: Path, packed: Path) -> None:
    np.testing.assert_allclose(maps_of(packed, runtime="openvino"), maps_of(plain, runtime="torch"), atol=1e-5)
    converted = maps_of(plain, runtime="openvino")  # when the run starts, by OpenVINO
    np.testing.assert_allclose(converted, maps_of(packed, runtime="openvino"), atol=1e-5)


def test_a_model_whose_maps_would_differ_stays_as_it_is(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the packed file is to replace it."""
    path = tmp_path / "model.pt"
    path.write_bytes(plain.read_bytes())
    monkeypatch.setattr(pack_runtime, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="not written: its maps would differ"):
        add_runtime(path, path, "openvino", patches(1)[0])
    assert path.read_bytes() == plain.read_bytes()
    assert [item.name for item in tmp_path.iterdir()] == ["model.pt"]


def test_mirror_images_are_averaged_as_in_pytorch(packed: Path) -> None:
    both = [maps_of(packed, runtime=runtime, tta=True) for runtime in ("openvino", "torch")]
    np.testing.assert_allclose(*both, atol=1e-5)


@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 3}, {"threads": 2, "batch": 4, "tta": False}], ids=str)
def test_maps_do_not_depend_on_threads_or_batch(packed: Path, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(maps_of(packed, **options), maps_of(packed))


def test_patches_may_be_waited_for_in_any_order(packed: Path) -> None:
    predictor = open_network(packed, config_for(packed.parent, packed), 2).predictor
    several = patches(9)
    expected = [predictor([patch])[0] for patch in several]
    waiting = [predictor.submit([patch]) for patch in several]  # more than there are places
    for index in np.random.default_rng(1).permutation(len(several)):
        np.testing.assert_array_equal(waiting[index]()[0], expected[index])
    cache = PredictionCache(predictor)
    waiting = [cache.submit(several[:3]), cache.submit(several[1:5]), cache.submit(several[:5])]
    for maps, (first, last) in zip([wait() for wait in waiting], [(0, 3), (1, 5), (0, 5)], strict=True):
        np.testing.assert_array_equal(maps, expected[first:last])


def test_weights_are_stored_once(plain: Path, packed: Path) -> None:
    weights = sum(value.numel() for value in Filtered().state_dict().values()) * 4
    with zipfile.ZipFile(packed) as archive:
        own = next(info for info in archive.infolist() if info.filename.endswith("openvino-float32.weights"))
    assert own.file_size < 0.2 * weights
    found = read_network(packed.read_bytes(), read_card(packed), "openvino", "float32", "a.pt")
    assert len(found.weights) >= weights


def test_a_run_takes_it_by_itself_and_says_so(plain: Path, packed: Path, tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "slide.tif")
    records = {}
    for model in (plain, packed):
        words = ["run", slide, "--out", tmp_path / model.stem, "--model", model, "--device", "cpu", "--threads", 1]
        assert nuclix_here(*words).code == 0
        records[model] = json.loads((tmp_path / model.stem / "slide.json").read_text())["model"]
    assert records[plain]["runtime"].startswith("torch ")
    assert records[packed]["runtime"] == f"openvino {openvino.__version__.partition('-')[0]}"
    geometries = [
        [item["geometry"] for item in json.loads((tmp_path / name / "slide.geojson").read_text())["features"]]
        for name in ("filtered", "packed")
    ]
    assert len(geometries[0]) > 50
    assert abs(len(geometries[0]) - len(geometries[1])) <= 1
    other = ["run", slide, "--out", tmp_path / "packed", "--model", packed, "--runtime", "torch", "--device", "cpu"]
    assert "runtime" in nuclix_here(*other).errors  # the result there was made with another one: the run asks


def test_a_slide_is_the_same_bytes_for_any_threads_batch_and_block(packed: Path, tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "slide.tif")
    found = []
    for index, options in enumerate([(1, 1, 64), (2, 3, 256), (2, 1, 2048)]):
        threads, batch, block = options
        words = ["--threads", threads, "--batch", batch, "--block", block, "--device", "cpu", "--model", packed]
        assert nuclix_here("run", slide, "--out", tmp_path / str(index), *words).code == 0
        found.append(results(tmp_path / str(index)))
    assert found[0] == found[1] == found[2]


def test_pytorch_is_not_imported(packed: Path, tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "slide.tif")
    code = (
        "import sys\n"
        "from nuclix.engine import api\n"
        f"model = api.load_model({str(packed)!r}, device='cpu')\n"
        f"print(len(api.segment({str(slide)!r}, model)), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    count, imported = done.stdout.split()
    assert int(count) > 50
    assert imported == "False"


def test_auto_is_pytorch_where_openvino_does_not_suit(
    packed: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_runtime(packed, "auto", "cpu", "auto") == "openvino"
    assert resolve_runtime(packed, "auto", "cuda:0", "auto") == "torch"
    assert resolve_runtime(packed, "auto", "cpu", "float16") == "torch"
    assert resolve_runtime(packed, "auto", "cpu", "int8") == "torch"  # which then says that it can't
    assert resolve_runtime(packed, "torch", "cpu", "auto") == "torch"
    assert resolve_runtime(plain, "auto", "cpu", "auto") == "torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_runtime(packed, "auto", "cpu", "auto") == "torch"


def test_pytorch_is_asked_for_a_gpu_only_where_a_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_DEV", tmp_path)
    assert device.is_cpu("auto")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not device.is_cpu("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.is_cpu("auto")


def test_threads_of_the_network_follow_quota_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [device.thread_share(shares) for shares in (1, 3, 20)] == [8, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert device.thread_share(1) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "--device cpu"),
        ({"precision": "float16"}, UsageError, "float16"),
        ({"precision": "int8"}, ModelError, "holds no int8 network"),
    ],
    ids=str,
)
def test_what_openvino_can_not_do_is_refused(
    packed: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        maps_of(packed, **{"runtime": "openvino", **options})


def test_int8_without_such_a_network_is_refused(plain: Path) -> None:
    with pytest.raises(UsageError, match="int8 network"):
        maps_of(plain, precision="int8")


def test_the_default_model_has_one() -> None:
    found = [
        maps_of(find_model("dist-kumar16"), 1, runtime=runtime, precision="float32") for runtime in ("auto", "torch")
    ]
    np.testing.assert_allclose(*found, atol=1e-3)  # of distances up to 16 px


# ---- networks that do not belong to the file ----


def test_a_network_of_other_weights_is_refused(packed: Path, card: ModelCard, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    save_model(other, Filtered(seed=1), card)
    with zipfile.ZipFile(other) as archive:
        tensor = next(archive.read(name) for name in archive.namelist() if name.endswith("/data/0"))
    path = altered(packed, tmp_path / "a.pt", "/data/0", lambda _: tensor)
    with pytest.raises(ModelError, match="made from other weights"):
        maps_of(path)
    assert maps_of(path, runtime="torch").any()


def test_a_damaged_network_is_refused(packed: Path, tmp_path: Path) -> None:
    graph = "openvino-float32.graph"
    changed = altered(packed, tmp_path / "a.pt", graph, lambda text: text.replace(b"ReLU", b"Tanh"))
    with pytest.raises(ModelError, match="not the one that its card describes"):
        maps_of(changed)
    for entry, content in ((".weights", b""), (".json", b"[["), (".json", b'[["code/x", 1]]')):
        damaged = altered(packed, tmp_path / "b.pt", f"openvino-float32{entry}", lambda _, content=content: content)
        with pytest.raises(ModelError, match=r"is damaged|not the one"):
            maps_of(damaged)


def test_another_card_keeps_the_networks_and_new_weights_drop_them(packed: Path, tmp_path: Path) -> None:
    card = read_card(packed)
    replace_card(packed, tmp_path / "named.pt", replace(card, name="named"))
    np.testing.assert_array_equal(maps_of(tmp_path / "named.pt"), maps_of(packed))
    save_model(tmp_path / "trained.pt", Filtered(seed=1), card)
    assert not read_card(tmp_path / "trained.pt").runtimes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'type="ReLU" version="opset1"', b'type="ReadValue" version="opset6"', "ReadValue"),
        (b'type="ReLU" version="opset1"', b'type="ReLU" version="extension"', "extension"),
        (b"<net ", b'<!DOCTYPE net [<!ENTITY a "b">]><net ', "declarations"),
        (b'offset="0"', b'offset="-8"', "no numbers"),
        (b"</net>", b"", "damaged"),
    ],
    ids=["operation", "set", "entity", "offset", "xml"],
)
def test_a_network_that_may_do_more_than_compute_is_refused(packed: Path, old: bytes, new: bytes, message: str) -> None:
    graph = read_network(packed.read_bytes(), read_card(packed), "openvino", "float32", "a.pt").graph
    check_graph(graph, "a.pt")
    assert old in graph
    with pytest.raises(ModelError, match=message):
        check_graph(graph.replace(old, new), "a.pt")


# ---- int8 ----


def int8_network() -> NetworkFiles:
    """Return (255 - red) / 16 by a convolution between fake quantisations, as NNCF writes them."""
    ops = openvino.opset13
    image = ops.parameter([1, 3, -1, -1], np.uint8, name="image")
    dark = ops.subtract(np.float32(255), ops.convert(image, np.float32))
    low, high = np.float32(0), np.float32(255)
    dark = ops.fake_quantize(dark, low, high, low, high, 256)
    weights = np.array([1 / 16, 0, 0], np.float32).reshape(1, 3, 1, 1)
    bound = np.float32(1 / 16)
    weights = ops.fake_quantize(ops.constant(weights), -bound, bound, -bound, bound, 255)
    maps = ops.convolution(dark, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return network_files(openvino.Model([maps], [image], "int8"))


def test_int8_is_asked_for_by_name(tmp_path: Path) -> None:
    red = make_model(tmp_path / "red.pt")
    path = tmp_path / "int8.pt"
    write_networks(red, path, read_card(red), "openvino", {"int8": int8_network()})
    found = maps_of(path, precision="int8")
    np.testing.assert_allclose(found, maps_of(red, runtime="torch"), atol=0.02)  # half a step of 1 / 16, rounded
    np.testing.assert_array_equal(maps_of(path, precision="int8", threads=2), found)
    predictor = open_network(path, replace(config_for(tmp_path, path), precision="int8")).predictor
    assert predictor.precision_name == "int8"
    assert resolve_runtime(path, "auto", "cpu", "auto") == "torch"  # it has none in float32


def test_packing_in_int8_needs_images_and_nncf(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["pack", plain, "--out", tmp_path / "a.pt"]
    assert "--calibration" in nuclix_here(*words, "--add", "openvino", "--int8").errors
    assert "--card" in nuclix_here(*words).errors
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModelError, match="pip install nncf"):
        add_runtime(plain, tmp_path / "a.pt", "openvino", patches(1)[0], patches(2))


def test_pack_writes_what_a_run_reads(plain: Path, tmp_path: Path) -> None:
    end = nuclix_here("pack", plain, "--add", "openvino", "--out", tmp_path / "a.pt")
    assert end.code == 0, end.errors
    assert "float32: maps differ" in end.said
    assert read_card(tmp_path / "a.pt").runtimes["openvino"].keys() == {"float32"}
    assert "tensorrt" in nuclix_here("pack", plain, "--add", "tensorrt", "--out", tmp_path / "b.pt").errors
    assert load_model(tmp_path / "a.pt", runtime="torch").card.name == "red"


def test_the_source_follows_the_contract() -> None:
    assert isinstance(OpenVinoSource(), ArrayRuntime)
