"""What every PostProcessor must do; a third party's test calls `check_postprocessor` with its plugin and own maps.

The heart is the promise that makes results independent of blocks: a pixel's foreground depends on the maps within
`context` pixels of it, and a clump's labels on the clump and the maps within `context` pixels of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from nuclix.engine.contracts import PostProcessor

EIGHT = np.ones((3, 3), bool)
SAMPLE = 12  # clumps of a map that are looked at one by one
CUTS = ((0.0, 0.5), (0.25, 0.75), (0.5, 1.0))  # blocks of a map, as shares of an edge


def check_postprocessor(processor: PostProcessor, maps: NDArray[np.float32]) -> None:
    """Raise AssertionError if `processor` breaks the contract on (channels, height, width) maps.

    `maps` should hold clumps of one and of several nuclei, some of them at the edges.
    """
    maps = np.ascontiguousarray(maps)
    maps.setflags(write=False)  # a plugin that writes to its input fails here
    mask = processor.foreground(maps)
    labels = processor.split(maps, mask)
    assert labels.max() > 1, "these maps have too few nuclei to say anything"
    check_declaration(processor, maps)
    check_results(processor, maps, mask, labels)
    check_memory(processor, maps, mask, labels)
    check_context(processor, maps)
    check_clumps(processor, maps, mask, labels)
    check_empty(processor, maps)


def check_declaration(processor: PostProcessor, maps: NDArray[np.float32]) -> None:
    """Check that it is a frozen dataclass with defaults, whose parameters survive a model file."""
    assert isinstance(processor, PostProcessor)
    assert dataclasses.is_dataclass(processor), "its parameters are the fields of a dataclass"
    parameters: Any = processor
    assert type(parameters)(**dataclasses.asdict(parameters)) == processor
    assert type(parameters)() == type(parameters)(), "every field has a default"
    assert parameters.__dataclass_params__.frozen
    assert len(processor.maps) == maps.shape[0]
    assert all(isinstance(name, str) and name for name in processor.maps)
    assert isinstance(processor.context, int)
    assert processor.context >= 0


def check_results(
    processor: PostProcessor, maps: NDArray[np.float32], mask: NDArray[np.bool_], labels: NDArray[np.int32]
) -> None:
    """Shapes, dtypes, and labels from 1 that each lie in one clump."""
    assert mask.dtype == np.bool_
    assert labels.dtype == np.int32
    assert mask.shape == labels.shape == maps.shape[1:]
    assert not labels[~mask].any(), "a label outside the foreground"
    assert set(np.unique(labels)) | {0} == set(range(labels.max() + 1)), "labels count from 1 without gaps"
    clumps = ndi.label(mask, EIGHT)[0]
    pairs = np.unique(np.stack([labels[labels > 0], clumps[labels > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1], "a label in two clumps"
    score = processor.score(maps)
    assert score.dtype == np.float32
    assert score.shape == labels.shape
    assert score.min() >= 0
    assert score.max() <= 1


def check_memory(
    processor: PostProcessor, maps: NDArray[np.float32], mask: NDArray[np.bool_], labels: NDArray[np.int32]
) -> None:
    """Check that the same input gives the same labels in any memory order, and that the mask is not changed."""
    wide = np.repeat(maps, 2, axis=2)[:, :, ::2]
    for view in (maps, np.asfortranarray(maps), wide):
        inside = np.asfortranarray(mask)
        inside.setflags(write=False)
        np.testing.assert_array_equal(processor.foreground(view), mask)
        np.testing.assert_array_equal(processor.split(view, inside), labels)
        np.testing.assert_array_equal(processor.score(view), processor.score(maps))


def check_context(processor: PostProcessor, maps: NDArray[np.float32]) -> None:
    """Check that a block's foreground is the whole map's, except `context` pixels along its cuts."""
    mask, context = processor.foreground(maps), processor.context
    height, width = mask.shape
    for top, bottom in CUTS:
        for left, right in CUTS:
            rows = slice(int(top * height), int(bottom * height))
            cols = slice(int(left * width), int(right * width))
            inner = (
                slice(context if top else 0, rows.stop - rows.start - (context if bottom < 1 else 0)),
                slice(context if left else 0, cols.stop - cols.start - (context if right < 1 else 0)),
            )
            block = processor.foreground(maps[:, rows, cols])
            np.testing.assert_array_equal(block[inner], mask[rows, cols][inner])


def check_clumps(
    processor: PostProcessor, maps: NDArray[np.float32], mask: NDArray[np.bool_], labels: NDArray[np.int32]
) -> None:
    """Check that a clump alone in its crop, whatever surrounds it, is split as in the whole map."""
    rng = np.random.default_rng(0)
    clumps, count = ndi.label(mask, EIGHT)
    context = processor.context
    for clump in rng.permutation(np.arange(1, count + 1))[:SAMPLE]:
        inside = clumps == clump
        near = ndi.binary_dilation(inside, EIGHT, iterations=context) if context else inside
        box = ndi.find_objects(near.astype(np.int8))[0]
        spoilt = np.where(near, maps, rng.permutation(maps.ravel()).reshape(maps.shape))
        for source in (maps, spoilt.astype(np.float32)):
            alone = processor.split(np.ascontiguousarray(source[:, *box]), np.ascontiguousarray(inside[box]))
            assert_same_regions(alone, np.where(inside, labels, 0)[box])


def assert_same_regions(found: NDArray[np.int32], expected: NDArray[np.int32]) -> None:
    """Equal but for the labels' names."""
    np.testing.assert_array_equal(found > 0, expected > 0)
    pairs = np.unique(np.stack([found[found > 0], expected[found > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1], "a clump was split in another way"


def check_empty(processor: PostProcessor, maps: NDArray[np.float32]) -> None:
    """No foreground, no labels; no pixels, no failure."""
    nothing = np.zeros(maps.shape[1:], bool)
    assert not processor.split(maps, nothing).any()
    none = maps[:, :0]
    assert processor.foreground(none).shape == (0, maps.shape[2])
    assert processor.split(none, nothing[:0]).shape == (0, maps.shape[2])
