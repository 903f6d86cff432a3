"""Nuclei as the connected components of a thresholded map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components


@dataclass(frozen=True, slots=True)
class Threshold:
    """Cut a probability map.

    Attributes
    ----------
    level : float
        Pixels above it are nuclei.
    """

    level: float = 0.5

    maps: ClassVar[tuple[str, ...]] = ("probability",)
    context: ClassVar[int] = 0

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the map exceeds the level."""
        return maps[0] > np.float32(self.level)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the 4-connected parts of the clumps in `mask`."""
        labels, _ = connected_components(mask, connectivity=4)
        return labels

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the map cut to 0..1."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
