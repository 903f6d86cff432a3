"""`nuclix pack`: networks of all kinds become model files that give what their cards say."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nuclix.engine.cli import main
from nuclix.engine.errors import ModelError
from nuclix.engine.inference.model_file import load_model, read_card
from nuclix.engine.model_card import InputFormat, OutputPart
from nuclix.engine.segmentation.packing import describe, pack_model

CARD = """
name = "mine"
method = "unet"
scale = {{ mpp = 0.5 }}
patch = {{ size = 96{margin}, multiple = 16 }}
maps = ["interior", "boundary"]
postprocessor = "boundary"
parameters = {{ min_area = 9 }}
classes = [{{ name = "Nucleus", color = [255, 0, 0] }}]
{more}
"""


def save(path: Path, module: torch.nn.Module, scripted: bool = False, size: int = 96) -> Path:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        example = torch.zeros(1, 3, size, size)
        made = (
            torch.jit.script(module) if scripted else torch.jit.trace(module, example, check_trace=False, strict=False)
        )
        torch.jit.save(made, str(path))
    return path


def card(path: Path, more: str = "", margin: int | None = None, size: int = 96) -> Path:
    text = CARD.format(more=more, margin="" if margin is None else f", margin = {margin}")
    path.write_text(text.replace("size = 96", f"size = {size}"))
    return path


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (200, 210, 3), np.uint8)


class Smooth(torch.nn.Module):
    """Two maps of means over 11 px, zero-padded: its border reaches 5 px inside."""

    def __init__(self, padding: int = 5) -> None:
        super().__init__()
        self.mean = torch.nn.Conv2d(3, 2, 11, padding=padding, bias=False)
        torch.nn.init.constant_(self.mean.weight, 1 / 363)

    def forward(self, x: torch.Tensor) -> Any:
        return self.mean(x)


def packed(tmp_path: Path, module: torch.nn.Module, more: str, margin: int | None = None, scripted: bool = False):
    facts = pack_model(
        save(tmp_path / "net.pt", module, scripted),
        card(tmp_path / "card.toml", more, margin),
        tmp_path / "m.pt",
        image(),
    )
    return facts, load_model(tmp_path / "m.pt")


def run(model, pixels: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(np.ascontiguousarray(pixels)[None]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return model.module(batch)[0].numpy()


UNIT = '[input]\ndtype = "float32"\nrange = "0-1"\n'


def test_the_margin_is_measured(tmp_path: Path) -> None:
    facts, model = packed(tmp_path, Smooth(), UNIT)
    assert facts.reach == 5
    assert facts.card.patch.margin == 16
    assert model.card.patch.margin == 16
    assert model.card.is_plain
    assert facts.deterministic
    assert facts.mpx_per_s > 0


def test_a_margin_that_is_too_small_is_a_warning(tmp_path: Path) -> None:
    facts, _ = packed(tmp_path, Smooth(), UNIT, margin=0)
    assert any("5 px" in warning for warning in facts.warnings)
    assert facts.card.patch.margin == 0


def test_a_network_that_crops_is_padded(tmp_path: Path) -> None:
    facts, model = packed(tmp_path, Smooth(padding=0), UNIT)
    assert (facts.crop, facts.card.patch.margin) == (5, 16)
    whole = run(load_model_of(tmp_path, Smooth()), image()[:96, :96])
    maps = run(model, image()[:96, :96])
    assert maps.shape == (2, 96, 96)
    np.testing.assert_allclose(maps[:, 5:-5, 5:-5], whole[:, 5:-5, 5:-5], atol=1e-6)
    assert not maps[:, :5].any()


class OneSize(Smooth):
    """Traced, it takes patches of one size alone."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.reshape(1, 3, int(x.shape[2]), 256))


class Particular(torch.nn.Module):
    """Scripted, it raises an error of TorchScript for patches of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Conv2d(3, 2, 11, padding=5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] != 256:
            raise ValueError("takes patches of 256 px")
        return self.mean(x)


class Average(Smooth):
    """Looks at its whole patch."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) + x.mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize(("network", "parts"), [(Smooth(), True), (OneSize(), False), (Average(), False)])
def test_whether_a_network_takes_parts_of_its_patch_is_tried(
    tmp_path: Path, network: torch.nn.Module, parts: bool
) -> None:
    save(tmp_path / "net.pt", network, size=256)
    text = card(tmp_path / "card.toml", UNIT, margin=16, size=256)
    picture = np.random.default_rng(0).integers(0, 256, (400, 420, 3), np.uint8)
    facts = pack_model(tmp_path / "net.pt", text, tmp_path / "m.pt", picture)
    assert facts.card.patch.dynamic == read_card(tmp_path / "m.pt").patch.dynamic == parts
    assert ("parts of it" in describe(facts)) == parts


def test_an_error_of_torchscript_says_that_a_network_takes_one_size(tmp_path: Path) -> None:
    save(tmp_path / "net.pt", Particular(), scripted=True)
    picture = np.random.default_rng(0).integers(0, 256, (400, 420, 3), np.uint8)
    text = card(tmp_path / "card.toml", UNIT, margin=16, size=256)
    facts = pack_model(tmp_path / "net.pt", text, tmp_path / "m.pt", picture)
    assert not facts.card.patch.dynamic
    with pytest.raises(ModelError, match="takes patches of 256 px only, so give"):
        pack_model(tmp_path / "net.pt", card(tmp_path / "card.toml", UNIT, size=256), tmp_path / "n.pt", picture)


def load_model_of(tmp_path: Path, module: torch.nn.Module):
    (tmp_path / "other").mkdir()
    return packed(tmp_path / "other", module, UNIT)[1]


class Pixels(torch.nn.Module):
    """Gives the first two channels of what it is given, in any kind of container."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(x)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (UNIT, lambda rgb: rgb[:2] / 255),
        ('[input]\ndtype = "float32"\nchannels = "BGR"\n', lambda rgb: rgb[[2, 1]]),
        (
            '[input]\ndtype = "float32"\nrange = "0-1"\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.3, 0.4]\n',
            lambda rgb: (rgb[:2] / 255 - [[[0.5]], [[0.4]]]) / [[[0.2]], [[0.3]]],
        ),
        (
            '[input]\ndtype = "float32"\nchannels = "BGR"\nmean = [1, 2, 3]\n',
            lambda rgb: rgb[[2, 1]] - [[[1]], [[2]]],
        ),
    ],
    ids=["0-1", "BGR", "mean and std", "BGR less mean"],
)
def test_input_is_prepared_as_the_card_says(tmp_path: Path, more: str, expected: Callable) -> None:
    _, model = packed(tmp_path, Pixels(lambda x: x[:, :2].float()), more, margin=16)
    pixels = image(3)[:96, :96]
    found = run(model, pixels)
    np.testing.assert_allclose(found, expected(pixels.transpose(2, 0, 1).astype(float)), rtol=1e-5, atol=1e-5)


def test_a_layout_with_channels_last_is_turned(tmp_path: Path) -> None:
    class Last(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., :2] * 2

    text = '[input]\ndtype = "float32"\nlayout = "NHWC"\n'
    _, model = packed(tmp_path, Last(), text, margin=16, scripted=True)
    pixels = image(3)[:96, :96]
    np.testing.assert_allclose(run(model, pixels), 2.0 * pixels.transpose(2, 0, 1)[:2], rtol=1e-6)


class Heads(torch.nn.Module):
    """A dictionary as HoVer-Net gives it: logits of three classes, and a pair of maps."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"np": x / 50 - 2, "hv": x[:, :2] / 100}


def test_outputs_are_chosen_from_a_dictionary(tmp_path: Path) -> None:
    more = (
        '[input]\ndtype = "float32"\n[[outputs]]\nkey = "np"\nactivation = "softmax"\nchannels = [2]\n'
        '[[outputs]]\nkey = "hv"\nactivation = "sigmoid"\nchannels = [0]\n'
    )
    _, model = packed(tmp_path, Heads(), more, margin=16, scripted=True)
    pixels = torch.from_numpy(image(3)[:96, :96].transpose(2, 0, 1).astype(np.float32))
    expected = torch.stack([(pixels / 50 - 2).softmax(0)[2], (pixels[0] / 100).sigmoid()])
    np.testing.assert_allclose(run(model, image(3)[:96, :96]), expected.numpy(), rtol=1e-5)


def test_outputs_are_chosen_from_a_tuple(tmp_path: Path) -> None:
    module = Pixels(lambda x: (x[:, :1], x[:, 1:]))
    more = '[input]\ndtype = "float32"\n[[outputs]]\nkey = "1"\nchannels = [1, 0]\n'
    _, model = packed(tmp_path, module, more, margin=16)
    pixels = image(3)[:96, :96]
    np.testing.assert_array_equal(run(model, pixels), pixels.transpose(2, 0, 1)[[2, 1]])


def test_a_stride_is_undone_by_repeating_pixels(tmp_path: Path) -> None:
    module = Pixels(lambda x: x[:, :2, ::2, ::2].float())
    _, model = packed(tmp_path, module, 'stride = 2\n[input]\ndtype = "float32"\n', margin=16)
    pixels = image(3)[:96, :96]
    expected = pixels.transpose(2, 0, 1)[:2, ::2, ::2].repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(run(model, pixels), expected)


def test_a_card_beside_the_network_does_the_same(tmp_path: Path) -> None:
    more = '[input]\ndtype = "float32"\nrange = "0-1"\nchannels = "BGR"\n'
    _, model = packed(tmp_path, Smooth(), more, margin=16)
    card(tmp_path / "net.toml", more, margin=16)
    reloaded = load_model(tmp_path / "net.pt")
    assert reloaded.card.input.channels == "BGR"
    np.testing.assert_array_equal(run(reloaded, image()[:96, :96]), run(model, image()[:96, :96]))


@pytest.mark.parametrize(
    ("module", "more", "message"),
    [
        (Pixels(lambda x: x[:, :1]), "", "gives .* the card names 2 channels"),
        (Pixels(lambda x: x[:, :2, :90, :80]), "", "90 x 80"),
        (Pixels(lambda x: (x, x)), '[[outputs]]\nkey = "5"\n', r"no output '5'.*0: \(1, 3, 96, 96\), 1: "),
        (Pixels(lambda x: {"a": x}), '[[outputs]]\nkey = "b"\n', r"no output 'b'.*dictionary of a \(1, 3, 96, 96\)"),
        (Pixels(lambda x: (x[:, :1], x)), "", r"gives a tuple of 0: \(1, 1, 96, 96\), 1: \(1, 3, 96, 96\)"),
        (Pixels(), "[[outputs]]\nchannels = [1, 3]\n", "has 3 channels, counted from 0: the card asks for 1, 3"),
        (Pixels(lambda x: x[:, :2, ::2, ::2]), "", "96 px.* one of every 2 pixels, write stride = 2"),
        (Pixels(), 'class_maps = ["interior"]\n', "'interior' 2 times"),
        (Pixels(), 'class_maps = ["Nucleus", "b"]\n', "'Nucleus' is a class"),
        (Smooth(), "", "fails on a patch"),
        (Pixels(), 'class_maps = ["a", "b", "c"]\n', "3 class_maps for 1 classes"),
        (Pixels(), '[input]\nchannels = "HSV"\n', "RGB, BGR"),
        (Pixels(), '[input]\nrange = "0-1"\n', "dtype"),
        (Pixels(), '[[outputs]]\nactivation = "relu"\n', "softmax"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, module, more: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        packed(tmp_path, module, more, margin=16)
    assert not (tmp_path / "m.pt").exists()


def test_a_network_of_grey_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 channels, but got 3 .*gives RGB"):
        packed(tmp_path, torch.nn.Conv2d(1, 2, 1), UNIT, scripted=True)


def test_a_forgotten_activation_is_warned_of(tmp_path: Path) -> None:
    signed = Pixels(lambda x: 8 * x[:, :2] - 4)
    warned, _ = packed(tmp_path, signed, UNIT, margin=16)
    assert any("interior reaches from -4" in item and "activation" in item for item in warned.warnings)
    done, _ = packed(tmp_path, signed, UNIT + '[[outputs]]\nactivation = "sigmoid"\n', margin=16)
    assert not any("activation" in item for item in done.warnings if "foreground" not in item)


def test_a_file_of_torch_save_is_no_network(tmp_path: Path) -> None:
    torch.save(Smooth().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt: was written by torch\.save"):
        pack_model(tmp_path / "weights.pt", card(tmp_path / "card.toml"), tmp_path / "m.pt", image())


@pytest.mark.parametrize(
    ("classes", "maps", "said"),
    [
        (2, '["a", "b"]', "A from a, B from b"),
        (2, '["none", "a", "b"]', "A from a, B from b; none is the background"),
        (2, '["type"]', "numbers in the map type: 1 A, 2 B"),
    ],
)
def test_pack_says_which_channel_is_of_which_class(tmp_path: Path, classes: int, maps: str, said: str) -> None:
    channels = 2 + maps.count(",") + 1
    path = card(tmp_path / "card.toml", UNIT, margin=16)
    names = ", ".join(f'{{ name = "{name}", color = [0, 0, 0] }}' for name in "AB"[:classes])
    text = path.read_text().replace('[{ name = "Nucleus", color = [255, 0, 0] }]', f"[{names}]\nclass_maps = {maps}")
    path.write_text(text)
    network = save(tmp_path / "net.pt", Pixels(lambda x: x[:, [0] * channels]))
    facts = pack_model(network, path, tmp_path / "m.pt", image())
    assert f"classes     {said}\n" in describe(facts)


def test_a_card_needs_no_parameters(tmp_path: Path) -> None:
    path = card(tmp_path / "card.toml", UNIT, margin=16)
    path.write_text(re.sub("parameters = .*", "", path.read_text()))
    pack_model(save(tmp_path / "net.pt", Smooth()), path, tmp_path / "m.pt", image())
    assert read_card(tmp_path / "m.pt").parameters == {}


def test_an_image_smaller_than_two_patches_is_mirrored(tmp_path: Path) -> None:
    from PIL import Image

    from nuclix.engine.cli.pack import _image

    pixels = image()[:100, :120]
    Image.fromarray(pixels).save(tmp_path / "tissue.png")
    found = _image(tmp_path / "tissue.png", 96)
    assert found.shape == (192, 192, 3)
    np.testing.assert_array_equal(found[:100, :120], pixels)
    np.testing.assert_array_equal(found[100:], found[99:7:-1])


def test_maps_in_another_order_are_refused(tmp_path: Path) -> None:
    path = card(tmp_path / "card.toml", margin=16)
    path.write_text(path.read_text().replace('"interior", "boundary"]', '"boundary", "interior"]'))
    with pytest.raises(ModelError, match="takes interior, boundary"):
        pack_model(save(tmp_path / "net.pt", Pixels()), path, tmp_path / "m.pt", image())


def test_the_command_packs_and_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = save(tmp_path / "net.pt", Smooth())
    facts = card(tmp_path / "card.toml", UNIT)
    command = ["pack", str(network), "--card", str(facts), "--out", str(tmp_path / "m.pt")]
    assert main([*command, "--json", str(tmp_path / "facts.json")]) == 0
    out = capsys.readouterr().out
    assert "margin 16 px" in out
    assert json.loads((tmp_path / "facts.json").read_text())["reach"] == 5
    assert read_card(tmp_path / "m.pt").parameters == {"min_area": 9}
    assert main([*command[:-1], str(network)]) == 2
    assert "another name" in capsys.readouterr().err


def test_defaults_ask_for_nothing() -> None:
    assert InputFormat().dtype == "uint8"
    assert OutputPart().activation == "none"


@pytest.mark.parametrize(
    ("name", "advice"), [("a.pth", "torch.jit.trace"), ("a.h5", "tf2onnx"), ("a.xml", "--runtime openvino")]
)
def test_a_file_of_another_kind_is_told_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"abc")
    with pytest.raises(ModelError, match=advice):
        pack_model(tmp_path / name, card(tmp_path / "card.toml"), tmp_path / "m.pt", image())
