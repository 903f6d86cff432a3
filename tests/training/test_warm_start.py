"""A training run that starts from a model file computes what the model computes, however wide it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nuclix.engine.errors import DataError
from nuclix.engine.inference.model_file import find_model, load_model
from nuclix.engine.training.unet import UNet, UNetShape, normalise
from nuclix.engine.training.warm_start import initialise
from nuclix.plugins.recipes.dist import DistRecipe

SHIPPED = UNetShape(n_feat_inner=80)


def images(size: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (2, 3, size, size)).astype(np.float32))


@pytest.mark.parametrize(
    "shape", [SHIPPED, replace(SHIPPED, n_feat_inner=96), replace(SHIPPED, channels=3), replace(SHIPPED, n_feat=40)]
)
def test_network_computes_what_the_model_computes(shape: UNetShape) -> None:
    path = find_model("dist-kumar16")
    torch.manual_seed(0)
    network = UNet(shape)
    initialise(network, path, lambda: normalise(images()))
    other = images(96)
    with torch.inference_mode():
        expected = load_model(path).module(other)
        found = network.eval()(normalise(other))[:, :1].relu()
    assert float(expected.max()) > 1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_is_new_learns_at_once() -> None:
    torch.manual_seed(0)
    network = UNet(replace(SHIPPED, n_feat_inner=96))
    initialise(network, find_model("dist-kumar16"), lambda: normalise(images()))
    network.train()(normalise(images())).square().mean().backward()
    weight = network.encoder[1][
        3
    ].weight  # second convolution after the first pooling: 96 of 96 features, 80 of 80 before
    assert float(weight.grad[:80, 80:].abs().max()) > 0  # from new features to old ones


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (replace(SHIPPED, depth=4), "no encoder.4.0.weight"),
        (replace(SHIPPED, depth=2), "no place for"),
        (replace(SHIPPED, n_feat=16), r"is \(32, 3, 4, 4\) in the model file, here \(16, 3, 4, 4\)"),
    ],
)
def test_other_networks_are_refused(shape: UNetShape, message: str) -> None:
    with pytest.raises(DataError, match=message):
        initialise(UNet(shape), find_model("dist-kumar16"), lambda: normalise(images()))


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"x\.pt: neither a checkpoint nor a model file"):
        initialise(UNet(SHIPPED), tmp_path / "x.pt", images)


def test_auxiliary_border_reaches_as_far_as_asked() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[10:20, 10:20] = 1
    for reach in (1, 3):
        nucleus, border = DistRecipe(auxiliary=1.0, border=reach).targets(labels)[1:]
        assert (nucleus == (labels > 0)).all()
        inside, outside = np.zeros_like(labels, bool), np.zeros_like(labels, bool)
        inside[10 + reach : 20 - reach, 10 + reach : 20 - reach] = True
        outside[10 - reach : 20 + reach, 10 - reach : 20 + reach] = True
        assert (border.astype(bool) == (outside & ~inside)).all()
