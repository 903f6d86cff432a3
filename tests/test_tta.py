"""Maps averaged over the four mirror images of every patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from end_to_end import make_model, make_slide, nuclix_here, results, run_options
from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import LoadedModel, load_model, save_model
from nuclix.engine.inference.predictor import InferenceSettings, Predictor

SIZE, MARGIN = 64, 16
SETTINGS = InferenceSettings(torch.device("cpu"), torch.float32, 2)


class Leaning(torch.nn.Module):
    """A network that sees left and top more than right and bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.look(image.float()))


@pytest.fixture(scope="module")
def leaning(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("leaning") / "leaning.pt"
    card = ModelCard(
        "leaning",
        "dist",
        Scale(0.25),
        PatchShape(SIZE, MARGIN),
        ("distance",),
        "dist",
        {},
        (ObjectClass("a", (0, 0, 0)),),
    )
    save_model(path, Leaning(), card)
    return load_model(path)


@pytest.fixture(scope="module")
def predictor(leaning: LoadedModel) -> Predictor:
    return Predictor(leaning, SETTINGS)


def test_flips_are_the_mean_over_the_patch_seen_from_four_sides(leaning: LoadedModel, predictor: Predictor) -> None:
    patch = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def seen(view: np.ndarray) -> np.ndarray:
        return predictor([np.ascontiguousarray(view)])[0]

    by_hand = np.mean(
        [
            seen(patch),
            seen(patch[::-1])[:, ::-1],
            seen(patch[:, ::-1])[:, :, ::-1],
            seen(patch[::-1, ::-1])[:, ::-1, ::-1],
        ],
        axis=0,
    )
    mirrored = Predictor(leaning, replace(SETTINGS, tta=True))
    found = mirrored([patch])[0]
    assert np.allclose(found, by_hand, rtol=1e-5, atol=1e-4)
    assert not np.allclose(found, seen(patch), atol=1.0)
    turned = mirrored([np.ascontiguousarray(patch[:, ::-1])])[0]
    assert np.allclose(turned[:, :, ::-1], found, rtol=1e-5, atol=1e-4), "a mirrored slide gives mirrored maps"


def test_a_run_with_flips_says_so_and_does_not_mix_with_one_without(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "red.pt"), tmp_path / "out"
    make_slide(tmp_path / "a.tif")
    for options, said in ((), ""), (("--tta", "--recompute"), "tta"):
        end = nuclix_here("run", tmp_path / "a.tif", *run_options(out, model), *options)
        assert end.code == 0, end.errors
        assert said in end.said + end.errors
    assert '"tta": true' in (out / "a.json").read_text(encoding="utf-8")
    assert set(results(out)) == {"a.geojson"}
