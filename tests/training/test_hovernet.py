"""The HoVer-Net recipe: the conformance suite, targets by definition, and nuclei found again from their targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import field_maps
from nuclix.engine import registry
from nuclix.engine.training.contracts import Recipe
from nuclix.plugins.postprocessors.hovernet import HoVerNet
from nuclix.plugins.recipes._hovernet_network import slopes
from nuclix.plugins.recipes.hovernet import HoVerNetRecipe
from nuclix.testing.recipe import CHECKS, Check

SMALL = (HoVerNetRecipe(n_feat=4, depth=2), HoVerNetRecipe(n_feat=4, depth=2, stem=1, slope_weight=0))
LABELS = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 4, 9]))


@pytest.mark.parametrize("recipe", SMALL, ids=repr)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, recipe: Recipe) -> None:
    check(recipe)


def test_the_recipe_is_registered() -> None:
    assert registry.load(registry.RECIPES, "hovernet") is HoVerNetRecipe


@given(LABELS)
def test_targets_are_distances_from_the_centre_scaled_by_side(labels) -> None:
    nuclei, horizontal, vertical = HoVerNetRecipe().targets(labels)
    np.testing.assert_array_equal(nuclei, labels > 0)
    for label in set(labels.ravel().tolist()) - {0}:
        rows, cols = np.nonzero(labels == label)
        for plane, places in ((horizontal, cols), (vertical, rows)):
            centre = int(np.floor(sum(places.tolist()) / len(places) + 0.5))
            for row, col, place in zip(rows, cols, places, strict=True):
                side = [abs(other - centre) for other in places.tolist() if (other - centre) * (place - centre) > 0]
                assert plane[row, col] == pytest.approx((place - centre) / max(side) if side else 0)
    assert not horizontal[labels == 0].any()
    assert not vertical[labels == 0].any()


def test_slopes_are_those_of_a_plane() -> None:
    rows, cols = np.mgrid[:9, :9].astype(np.float32)
    found = slopes(torch.from_numpy(np.stack([3 * cols, 2 * rows]))[None])[0, :, 4, 4]
    assert found[0] / found[1] == pytest.approx(1.5)


def test_nuclei_are_found_again_from_their_targets() -> None:
    labels = field_maps.ellipses((200, 200), 3)
    maps = HoVerNetRecipe().targets(labels)
    post = HoVerNet()
    found = post.split(maps, post.foreground(maps))
    hits = sum(
        1
        for label in range(1, labels.max() + 1)
        if max(np.bincount(found[labels == label])[1:], default=0) > 0.6 * (labels == label).sum()
    )
    assert hits > 0.85 * labels.max()


def test_the_loss_is_least_for_the_targets() -> None:
    labels = field_maps.ellipses((64, 64), 1)
    recipe = HoVerNetRecipe()
    targets = torch.from_numpy(recipe.targets(labels))[None]
    right = torch.cat([targets[:, :1] * 40 - 20, targets[:, 1:]], 1)
    assert float(recipe.loss()(right, targets)) < 1e-3
    for k in range(3):
        wrong = right.clone()
        wrong[:, k] *= 0.1
        assert recipe.loss()(wrong, targets) > recipe.loss()(right, targets)


@pytest.mark.parametrize("bad", [{"stem": 3}, {"n_feat": 0}, {"depth": 0}, {"slope_weight": -1}], ids=str)
def test_bad_parameters_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        HoVerNetRecipe(**bad)
