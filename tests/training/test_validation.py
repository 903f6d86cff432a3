"""Scores on whole images, and the parameters that are chosen by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from blobs import blob_labels, blobs
from nuclix.engine.evaluation.scores import score
from nuclix.engine.training.execution import Execution
from nuclix.engine.training.selection import choose_parameters, predict, score_parameters
from nuclix.engine.training.validation import forward, mirrored_mean, score_image, validate
from nuclix.plugins.recipes.dist import DistRecipe

RECIPE = DistRecipe(n_feat=2, depth=2)
EXECUTION = Execution(torch.device("cpu"), torch.float32)
IMAGES = [blobs("a", (50, 61), 1), blobs("b", (64, 48), 2)]


class FewCandidates(DistRecipe):
    def candidates(self) -> Sequence[Mapping[str, Any]]:
        return [{"p1": 0.25, "p2": p2, "min_area": 0} for p2 in (0.5, 3.5, 1.5, 6.5)]


@pytest.mark.parametrize("shape", [(50, 61), (48, 64), (7, 8)])
def test_a_whole_image_goes_through_whatever_its_size(shape: tuple[int, int]) -> None:
    image = blobs("x", shape).image
    maps = forward(lambda batch: batch[:, :1] * 2, image, 16)
    assert maps.shape == (1, *shape)
    assert np.array_equal(maps[0].numpy(), image[..., 0] * 2.0)


def test_the_network_sees_multiples_only() -> None:
    seen: list[tuple[int, ...]] = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(batch.shape))
        return batch

    forward(network, IMAGES[0].image, 16)
    assert seen == [(1, 3, 64, 64)]


def test_mirrored_mean_leaves_what_does_not_know_directions_alone() -> None:
    batch = torch.rand(2, 3, 8, 12)
    assert torch.allclose(mirrored_mean(lambda it: it.square())(batch), batch.square())
    ramp = torch.arange(12.0).expand(2, 1, 8, 12)
    assert torch.allclose(mirrored_mean(lambda it: ramp)(batch), torch.full_like(ramp, 5.5))


def test_scores_are_those_of_nuclix_evaluate() -> None:
    truth, found = blob_labels((60, 60), 1), blob_labels((60, 60), 2)
    quick, full = score_image(truth, found), score(truth, found)
    assert (quick.aji, quick.f1, quick.pq) == pytest.approx((full.aji, full.f1, full.pq))


def test_perfect_maps_score_one_and_the_best_candidate_is_taken() -> None:
    """Of maps that are 3 px too high everywhere, the threshold 3.5 gives back every nucleus."""
    recipe = FewCandidates()
    apart = []
    for item in IMAGES:
        rows, cols = np.indices(item.labels.shape)
        labels = ((rows % 20 < 12) & (cols % 20 < 12)) * (1 + rows // 20 + 5 * (cols // 20))
        apart.append(type(item)(item.name, item.image, labels.astype(np.int32)))
    maps = [recipe.targets(item.labels) + np.float32(3) for item in apart]
    chosen = choose_parameters(recipe, apart, maps, threads=2)
    assert chosen.parameters["p2"] == 3.5
    assert chosen.mean.aji == chosen.mean.pq == chosen.mean.f1 == 1.0
    assert set(chosen.by_image) == {"a", "b"}
    worse = score_parameters(recipe, apart, maps, recipe.candidates()[3])
    assert worse.mean.aji < 1


def test_of_equals_the_first_candidate_is_taken() -> None:
    recipe = FewCandidates()
    empty = [np.zeros((1, *item.labels.shape), np.float32) for item in IMAGES]
    assert choose_parameters(recipe, IMAGES, empty).parameters == recipe.candidates()[0]


def test_validation_gives_means_and_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    network = RECIPE.network().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = validate(RECIPE, network, IMAGES, EXECUTION)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    losses = [validate(RECIPE, network, [item], EXECUTION).loss for item in IMAGES]
    assert found.loss == pytest.approx(np.mean(losses))
    assert 0 <= found.scores.aji <= 1


def test_predictions_are_the_exported_networks() -> None:
    torch.manual_seed(0)
    network = RECIPE.network()
    maps = predict(RECIPE, network, IMAGES, EXECUTION)
    assert [item.shape for item in maps] == [(1, 50, 61), (1, 64, 48)]
    image = torch.from_numpy(IMAGES[1].image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert np.allclose(maps[1], RECIPE.exported(network.eval())(image)[0].numpy(), atol=1e-5)
