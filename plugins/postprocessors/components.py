"""Nuclei as the connected components of a thresholded probability map: no splitting at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components, without_small


@dataclass(frozen=True, slots=True)
class Components:
    """Post-processor of the encoder-decoder (Mercadier et al., 2019, section 3.1): the more likely class, no more.

    Attributes
    ----------
    threshold : float
        Pixels of a greater probability are nuclei; 0.5 takes the more likely of two classes.
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    threshold: float = 0.5
    min_area: int = 0

    maps: ClassVar[tuple[str, ...]] = ("nucleus",)
    context: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be at least 0 and below 1, not {self.threshold}")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0 px, not {self.min_area}")

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the probability exceeds the threshold, from (1, height, width) maps."""
        return maps[0] > np.float32(self.threshold)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the 4-connected components of `mask`, from 1, in the order of their first pixels."""
        labels, _ = connected_components(mask, connectivity=4)
        return without_small(labels, self.min_area)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
