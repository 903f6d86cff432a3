"""The post-processors of the field compared with plain readings of their methods, on simulated maps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import field_maps
import field_oracles
from nuclix.plugins.postprocessors.boundary import Boundary
from nuclix.plugins.postprocessors.cellpose import Cellpose
from nuclix.plugins.postprocessors.hovernet import HoVerNet
from nuclix.plugins.postprocessors.stardist import StarDist
from peers import SIZES, race


@functools.cache
def maps_of(name: str, size: int) -> np.ndarray:
    make = {
        "boundary": field_maps.boundary_maps,
        "hovernet": field_maps.hover_maps,
        "stardist": field_maps.star_maps,
        "cellpose": field_maps.flow_maps,
    }[name]
    return make(field_maps.ellipses((size, size), 1), 1)


def ours(post: Any, image: np.ndarray, name: str) -> Callable[[], Any]:
    maps = maps_of(name, len(image))
    return lambda: post.split(maps, post.foreground(maps))


def plain(find: Callable[[np.ndarray], Any], image: np.ndarray, name: str) -> Callable[[], Any]:
    maps = maps_of(name, len(image))
    return lambda: find(maps)


POSTS = {"boundary": Boundary(), "hovernet": HoVerNet(), "stardist": StarDist(), "cellpose": Cellpose()}
READINGS = {
    "boundary": field_oracles.boundary,
    "hovernet": field_oracles.hovernet,
    "stardist": field_oracles.stardist,
    "cellpose": field_oracles.cellpose,
}


@pytest.mark.parametrize("who", ["nuclix", "scikit-image"])
@pytest.mark.parametrize("name", POSTS)
def test_postprocessor(benchmark: Any, name: str, who: str) -> None:
    """Time both on 1000 x 1000 px; where the plain one would take minutes, only nuclix."""
    if who != "nuclix" and name in ("stardist", "cellpose"):
        pytest.skip("minutes; docs/postprocessors.md has figures")
    contenders = {
        "nuclix": lambda image: ours(POSTS[name], image, name),
        "scikit-image": lambda image: plain(READINGS[name], image, name),
    }
    race(benchmark, name, who, contenders, np.zeros((SIZES[0], SIZES[0])))
