"""What blocks have in common along their edges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray


def touching_pieces(here: NDArray[np.int64], there: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Return the pairs of pieces that are 8-neighbours across a shared side (or corner: one pixel each)."""
    pairs: set[tuple[int, int]] = set()
    n = len(here)
    for shift in (-1, 0, 1):
        a = here[max(0, -shift) : n - max(0, shift)]
        b = there[max(0, shift) : n - max(0, -shift)]
        both = (a > 0) & (b > 0)
        pairs.update(zip(a[both].tolist(), b[both].tolist(), strict=True))
    return pairs


def intervals(edges: tuple[int, ...], start: int, end: int) -> range:
    """Return the indices of the intervals of `edges` that meet [start, end)."""
    return range(max(0, bisect_right(edges, start) - 1), min(len(edges) - 1, bisect_left(edges, end)))


def piece_numbers(image: NDArray[np.int64] | None) -> list[int]:
    """Return the distinct piece numbers in `image`, without 0."""
    if image is None:
        return []
    found = np.unique(image)
    return [int(number) for number in found[found > 0]]
