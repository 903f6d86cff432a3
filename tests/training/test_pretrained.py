"""Encoder weights of other networks: torchvision's layer order, written here as plain modules."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.training.pretrained import IMAGENET, load_encoder
from nuclix.engine.training.unet import normalise
from nuclix.plugins.recipes._attention_network import ScaleClassifier
from nuclix.plugins.recipes._probability_networks import VGG_STAGES, vgg_stages


def vgg16_bn() -> nn.Sequential:
    """VGG16 with batch norm as torchvision has it: convolution with bias, batch norm, ReLU; a pooling per stage."""
    layers: list[nn.Module] = []
    inputs = 3
    for maps, count in VGG_STAGES:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
            inputs = maps
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def disturbed(network: nn.Module) -> nn.Module:
    """Random statistics, so that a batch norm that is left out shows."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.1)):
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator) * 0.3)
    return network.eval()


def imagenet_input(rgb: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (rgb / 255 - mean) / deviation


@pytest.mark.parametrize("name", ["vgg.pt", "vgg.safetensors"])
def test_vgg16_computes_what_the_original_computes_away_from_the_border(tmp_path, name):
    original = disturbed(vgg16_bn())
    for module in original:
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)  # the encoder's convolutions have none
    path = tmp_path / name
    content = {"features." + name: value for name, value in original.state_dict().items()}
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    encoder = vgg_stages(1.0)
    load_encoder(encoder, path)
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = original[:6](imagenet_input(rgb))
        found = encoder.eval()[0](normalise(rgb))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)


def test_a_resnet_is_matched_with_its_shortcuts(tmp_path):
    donor, own = ScaleClassifier(64, 34, 3), ScaleClassifier(64, 34, 3)
    renamed = {name.replace("shortcut", "downsample"): value for name, value in disturbed(donor).state_dict().items()}
    torch.save(renamed, tmp_path / "resnet.pt")
    load_encoder(nn.ModuleDict({"stem": own.stem, "blocks": own.blocks}), tmp_path / "resnet.pt")
    for (name, theirs), ours in zip(donor.blocks.state_dict().items(), own.blocks.state_dict().values(), strict=True):
        if "num_batches" not in name:
            assert torch.equal(theirs, ours), name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a.weight": torch.zeros(64, 3, 5, 5)}, "convolutions where the encoder has 13"),
        ({f"{i}.weight": torch.zeros(8, 8, 3, 3) for i in range(13)}, "full width"),
        ({"a": [1]}, "no state dict"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(DataError, match=words):
        load_encoder(vgg_stages(1.0), tmp_path / "other.pt")


def test_a_network_without_batch_norms_is_refused(tmp_path):
    plain = nn.Sequential(*(layer for layer in vgg16_bn() if not isinstance(layer, nn.BatchNorm2d)))
    torch.save(plain.state_dict(), tmp_path / "vgg.pt")
    with pytest.raises(DataError, match="batch norm"):
        load_encoder(vgg_stages(1.0), tmp_path / "vgg.pt")


def test_a_file_that_is_no_state_dict_names_itself(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"not a file of torch")
    with pytest.raises(DataError, match=r"weights\.pt"):
        load_encoder(vgg_stages(0.125), tmp_path / "weights.pt")


def test_freezing_needs_an_encoder():
    from nuclix.engine.training.loop import _encoder

    with pytest.raises(UsageError, match="no encoder"):
        _encoder(nn.Conv2d(3, 1, 1), "--freeze-encoder")


def test_the_order_of_layers_does_not_need_the_order_of_the_file():
    """Safetensors files are sorted by name; these are torchvision's and timm's names in the order of the data."""
    from nuclix.engine.training.pretrained import _place

    resnet = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.conv2.weight"]
    resnet += ["layer1.0.bn2.weight", "layer1.2.conv1.weight", "layer1.10.conv1.weight", "layer2.0.conv1.weight"]
    xception = ["conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight", "block1.rep.0.conv1.weight"]
    xception += ["block1.rep.0.pointwise.weight", "block1.rep.1.weight", "block2.rep.1.conv1.weight"]
    xception += ["block12.rep.1.conv1.weight", "conv3.conv1.weight", "conv3.pointwise.weight", "bn3.weight"]
    for names in (resnet, xception):
        assert sorted(sorted(names), key=_place) == names
