"""The attention recipe: its equations by hand, its batches and colours, and a small training up to a model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from blobs import blobs, write_folder
from nuclix.engine import registry
from nuclix.engine.cli import main
from nuclix.engine.errors import DataError
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import load_model
from nuclix.engine.slide.reinhard import from_lab, moments, to_lab, transfer
from nuclix.engine.training.contracts import Annotated, BatchShape, CustomLoss, CustomSampler, CustomSchedule
from nuclix.engine.training.schedule import Schedule
from nuclix.engine.training.unet import normalise
from nuclix.plugins.recipes._attention_network import Attention, ScaleClassifier, SelfSupervised, Sparsity, radius
from nuclix.plugins.recipes._attention_objective import Objective, dice_loss, smoothness, transformed
from nuclix.plugins.recipes._attention_tiles import area_average, covers, slide_sources, tissue
from nuclix.plugins.recipes.attention import AttentionRecipe
from nuclix.testing.recipe import CHECKS, Check
from slides import write_slide

SMALL = AttentionRecipe(n_feat=2, width=2, depth=10)
HALF = AttentionRecipe(n_feat=2, width=2, depth=10, stem=2, sparse=False, polarity="random")
SHAPE = BatchShape(batch=5, patch=32)
images = npst.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


def tiles(seed: int = 0) -> list[Annotated]:
    return [blobs(f"i{number}", (160, 180), seed=number) for number in range(seed, seed + 3)]


@pytest.mark.parametrize("recipe", [SMALL, HALF], ids=["paper", "half"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: AttentionRecipe) -> None:
    check(recipe)


def test_the_recipe_is_registered_and_speaks_the_protocols() -> None:
    assert registry.load(registry.RECIPES, "attention") is AttentionRecipe
    for protocol in (CustomSampler, CustomLoss, CustomSchedule):
        assert isinstance(SMALL, protocol)
    assert Schedule(**SMALL.schedule()).rate(2999) == 2e-4


def test_the_classifier_is_a_resnet_34() -> None:
    """torchvision's has 21,797,672 parameters with 1000 classes, 513,000 of them in the last layer."""
    network = ScaleClassifier(64, 34, 3)
    assert sum(item.numel() for item in network.parameters()) == 21_797_672 - 513_000 + 513 * 3
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("stem", [1, 2])
def test_radius_is_what_gradients_reach(stem: int) -> None:
    torch.manual_seed(0)
    network = Attention(1, stem, Sparsity(None)).double().eval()
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.0)
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(part.weight)
    reached = 0
    for phase in range(stem):
        image = torch.rand(1, 3, 16, 400, dtype=torch.float64, requires_grad=True)
        network.body(image)  # positive weights on positive images: no ReLU blocks
        features = network.body(image)
        network.enlarge(network.head.double()(features))[0, 0, 8, 200 + phase].backward()
        assert image.grad is not None
        columns = torch.nonzero(image.grad.abs().sum((0, 1, 2)) > 0).flatten() - (200 + phase)
        reached = max(reached, int(columns.abs().max()))
    assert reached <= radius(stem) <= reached + stem


def test_tau_is_equation_1_and_its_running_mean_serves_in_evaluation() -> None:
    network = Attention(2, 1, Sparsity(93.0, 20.0))
    first = torch.arange(100.0).reshape(1, 1, 10, 10)
    batch = torch.cat([first, first.flip(2) + 10])
    assert float(network.threshold(batch)) == pytest.approx((92 + 102) / 2)  # seven of a hundred lie above
    assert float(network.tau) == pytest.approx(97)
    network.threshold(batch + 100)
    assert float(network.tau) == pytest.approx(0.9 * 97 + 0.1 * 197)
    network.eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        together = network(image)
        assert torch.allclose(together, 20 * (network.confidence(image) - network.tau))
        assert torch.allclose(network(image[:1]), together[:1], atol=1e-5), "an image's attention is its own"
        assert int(network.seen) == 2


@pytest.mark.parametrize("tau_gradient", [False, True])
def test_gradients_flow_through_tau_only_where_asked(tau_gradient: bool) -> None:
    network = Attention(2, 1, Sparsity(tau_gradient=tau_gradient))
    confidence = torch.rand(2, 1, 16, 16, requires_grad=True)
    network.biased(confidence, network.threshold(confidence)).sigmoid().sum().backward()
    assert confidence.grad is not None
    gains_by_raising_everywhere = abs(float(confidence.grad.sum())) > 1e-3
    assert gains_by_raising_everywhere != tau_gradient


def test_without_sparsity_the_sigmoid_is_plain() -> None:
    network = Attention(2, 1, Sparsity(None)).train()
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(image), network.confidence(image))
    assert float(network.tau) == 0


def test_the_attention_begins_dark() -> None:
    torch.manual_seed(0)
    item = blobs("i", (96, 96), seed=1)
    image = normalise(torch.from_numpy(item.image).permute(2, 0, 1)[None])
    network = AttentionRecipe(n_feat=8, width=2, depth=10).network().train()
    with torch.no_grad():
        confidence = network.attention.confidence(image)[0, 0].numpy()  # type: ignore[union-attr,operator]
    assert confidence[item.labels > 0].mean() > confidence[item.labels == 0].mean() + 0.3


def test_smoothness_is_equation_3() -> None:
    attention = torch.tensor([[[[0.0, 1.0, 1.0], [0.5, 0.0, 1.0]]], [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    down, right = 0.5 + 1.0 + 0.0, 1.0 + 0.0 + 0.5 + 1.0
    assert float(smoothness(attention)) == pytest.approx((down + right) / (1 * 2) / 2)


def test_the_transforms_are_the_six_of_the_paper() -> None:
    square = torch.arange(9.0).reshape(1, 1, 3, 3)
    seen = {tuple(transformed(square, which).flatten().tolist()) for which in range(6)}
    assert len(seen) == 6 and tuple(square.flatten().tolist()) not in seen
    for which, back in ((0, 0), (1, 1), (2, 2), (3, 5), (4, 4), (5, 3)):
        assert torch.equal(transformed(transformed(square, which), back), square)


class Known(torch.nn.Module):
    """Stands for F and G: the confidence is the first channel, the scores are known."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.attention, self.scores = Attention(1, 1, Sparsity(None)), scores
        self.attention.confidence = lambda image: image[:, :1] * torch.arange(1.0, 4.0)  # type: ignore[method-assign]
        self.attended: list[torch.Tensor] = []

    def classifier(self, attended: torch.Tensor) -> torch.Tensor:
        self.attended.append(attended)
        return self.scores


def test_the_objective_is_equation_5_and_its_ablations() -> None:
    images_ = torch.rand(2, 3, 3, 3)
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[:, :, None, None]
    scale = -torch.log_softmax(scores, 1)[[0, 1], [1, 0]].mean()
    attention = (images_[:, :1] * torch.arange(1.0, 4.0)).sigmoid()
    turned = (images_.flip(3)[:, :1] * torch.arange(1.0, 4.0)).sigmoid()
    equivariance = ((attention.flip(3) - turned) ** 2).mean()
    parts = {(False, False): scale, (True, False): scale + smoothness(attention)}
    parts |= {(False, True): scale + equivariance, (True, True): scale + smoothness(attention) + equivariance}
    for (smooth, equivariant), expected in parts.items():
        network = Known(scores)
        assert float(Objective(smooth, equivariant)(network, images_, targets)) == pytest.approx(float(expected))
        grey = 2 * torch.tensor([0.485, 0.456, 0.406])[None, :, None, None] - 2  # of 0..1, in -2..0
        assert torch.allclose(network.attended[0], attention * (images_ - grey)), "J = A * I, centred on mean grey"
        Objective(smooth, equivariant, grey=False)(network, images_, targets)
        assert torch.allclose(network.attended[1], attention * images_), "J = A * I, white being 0"


def test_while_the_classifier_leads_the_attention_does_not_learn() -> None:
    network = SMALL.network()
    assert isinstance(network, SelfSupervised)
    objective = Objective(lead=1)
    for learns in (False, True):
        network.zero_grad()
        objective(network, torch.rand(3, 3, 32, 32) - 1, torch.zeros(3, 2, 1, 1)).backward()
        gradient = network.attention.head.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == learns
        assert network.classifier.head.weight.grad is not None


def test_dice_of_the_attention_and_the_truth() -> None:
    truth = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    assert float(dice_loss(torch.tensor([[[[99.0, -99.0, 99.0, -99.0]]]]), truth)) == pytest.approx(0.5)
    assert float(dice_loss(torch.full((1, 1, 1, 4), -200.0), truth * 0)) == pytest.approx(0)


@given(images)
def test_colours_survive_the_way_to_lab_and_back(image: np.ndarray) -> None:
    assert np.array_equal(from_lab(to_lab(image)), image)
    assert np.abs(transfer(image, moments(image)).astype(int) - image).max() <= 1


def test_a_transfer_gives_the_targets_moments() -> None:
    source, target = blobs("a", seed=1).image, np.clip(blobs("b", seed=2).image * 0.5 + 60, 0, 255).astype(np.uint8)
    found, wanted = moments(transfer(source, moments(target))), moments(target)
    assert np.allclose(found.mean, wanted.mean, atol=0.02) and np.allclose(found.deviation, wanted.deviation, rtol=0.1)


def test_area_average_and_cover_by_definition() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (11, 14, 3), dtype=np.uint8)
    expected = image[:8, :12].reshape(2, 4, 3, 4, 3).mean((1, 3))
    assert np.abs(area_average(image, 4) - expected).max() <= 0.5
    mask = rng.random((7, 9)) < 0.5
    windows = np.lib.stride_tricks.sliding_window_view(mask, (3, 4))
    assert np.allclose(covers(mask, 3, 4), windows.mean((2, 3)))
    assert covers(mask, 8, 4).size == 0


def test_tissue_is_coloured() -> None:
    colours = np.array([[[255, 255, 255], [240, 238, 236], [225, 170, 200], [90, 60, 140], [5, 0, 5]]], np.uint8)
    assert tissue(colours).tolist() == [[False, False, True, True, False]]


def test_batches_are_even_repeatable_and_know_no_labels() -> None:
    first, other = tiles(), [Annotated(item.name, item.image, item.labels * 0) for item in tiles()]
    source, again = SMALL.batches(first, SHAPE, 7), SMALL.batches(other, SHAPE, 7)
    counts = np.zeros(3, int)
    for step in (0, 1, 2):
        batch, targets = source.batch(step)
        assert batch.shape == (5, 3, 32, 32) and batch.dtype == torch.float32
        assert targets.shape == (5, 2, 1, 1) and len(targets[:, 1].unique()) == 1
        assert all(torch.equal(*pair) for pair in zip((batch, targets), again.batch(step), strict=True))
        counts += np.bincount(targets[:, 0].flatten().int(), minlength=3)
    assert counts.tolist() == [5, 5, 5]
    assert not torch.equal(source.batch(0)[0], SMALL.batches(first, SHAPE, 8).batch(0)[0])


def test_magnifications_are_of_one_image() -> None:
    """Stripes of 8 px at 40x are of 4 px at 20x and of 2 px at 10x."""
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:] = np.where(np.arange(160) // 8 % 2, 200, 60)[:, None, None] * np.array([1, 0.6, 0.8])
    source = AttentionRecipe(stain="none").batches([Annotated("s", stripes, np.zeros((160, 160), np.int32))], SHAPE, 0)
    batch, targets = source.batch(0)
    for crop, scale in zip(batch, targets[:, 0, 0, 0].int().tolist(), strict=True):
        changes = max(int((crop[0].diff(dim=axis) != 0).any(dim=1 - axis).sum()) for axis in (0, 1))
        assert changes in (32 // (8 >> scale) - 1, 32 // (8 >> scale))


def test_tiles_avoid_glass() -> None:
    image = np.full((300, 300, 3), 245, np.uint8)
    image[:, :150] = (200, 120, 180)
    source = AttentionRecipe(stain="none").batches([Annotated("h", image, np.zeros((300, 300), np.int32))], SHAPE, 0)
    fine = [crop for step in range(4) for crop, scale in zip(*source.batch(step), strict=True) if scale[0] == 0]
    assert all(float((crop[1] < 200).float().mean()) > 0.5 for crop in fine)


def test_images_too_small_for_a_magnification_are_said_so() -> None:
    with pytest.raises(DataError, match="at 1 um/px"):
        SMALL.batches([blobs("small", (96, 96))], SHAPE, 0)


def test_slides_give_tiles_of_tissue_at_the_magnifications_they_have(tmp_path: Path) -> None:
    image = np.full((1024, 1536, 3), 245, np.uint8)
    image[:, :1024] = blobs("big", (1024, 1024), seed=3).image
    write_slide(tmp_path / "fine.svs", image, mpp=0.25, compression="none")
    write_slide(tmp_path / "coarse.svs", image, mpp=0.5, compression="none")
    found = slide_sources(tmp_path, Scale(0.25), 32)
    assert [len(sources) for sources in found] == [1, 2, 2], "40x is not made up from a 20x scan"
    rng = np.random.default_rng(0)
    for sources in found:
        for source in sources:
            assert all(tissue(source.crop(32, rng)).mean() > 0.3 for _ in range(5))
    (fine,) = found[0]
    assert fine.places[:, 1].max() < 1024, "a third of the slide is background"
    crop = fine.crop(32, np.random.default_rng(0))
    assert any(
        np.array_equal(crop, image[row : row + 32, col : col + 32])
        for row, col in ((place + np.array([i, j])) for place in fine.places for i in range(14) for j in range(14))
    ), "level 0 is read as it is"


def test_a_missing_folder_of_slides_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        AttentionRecipe(slides=str(tmp_path / "none")).batches(tiles(), SHAPE, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"stem": 3},
        {"depth": 50},
        {"n_feat": 0},
        {"eta": 100.0},
        {"compression": 0.0},
        {"polarity": "up"},
        {"stain": ""},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AttentionRecipe(**bad)  # type: ignore[arg-type]


def test_from_tiles_to_a_model_file_without_the_classifier(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", [blobs(f"i{seed}", (128, 128), seed=seed) for seed in range(3)])
    (data / "split.csv").write_text("image,split\ni0,train\ni1,train\ni2,validation\n")
    out = tmp_path / "tiny.pt"
    words = ["--steps", "4", "--batch", "3", "--patch", "32", "--n-feat", "2", "--set", "width=4", "--set", "depth=10"]
    words += [
        "--set",
        "stem=2",
        "--set",
        "lead=1",
        "--validate-every",
        "2",
        "--device",
        "cpu",
        "--precision",
        "float32",
    ]
    assert main(["train", "attention", "--data", str(data), "--out", str(out), *words]) == 0
    loaded = load_model(out)
    assert loaded.card.maps == ("attention",) and loaded.card.postprocessor == "attention"
    with torch.inference_mode():
        maps = loaded.module(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    assert maps.shape == (1, 1, 32, 32) and 0 <= float(maps.min()) <= float(maps.max()) <= 1
    assert not any("classifier" in name for name in loaded.module.state_dict())
