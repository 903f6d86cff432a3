"""Nuclei from a probability map: argmax alone, or the dynamics and watershed of the ISBI 2017 paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components, without_small
from nuclix.ext.dynamics import dynamics_watershed

GREY_LEVELS = 255  # p1 of Table I of the DIST paper counts in steps of an 8-bit image


@dataclass(frozen=True, slots=True)
class Probability:
    """Post-processor of pixel classifiers (Naylor et al., IEEE TMI 2019, section IV-D and Table I).

    Attributes
    ----------
    split_touching : bool
        True finds nuclei by maxima and watershed ("+ PP" in Table II). False takes connected components, which for
        p2 = 0.5 is the argmax of the two classes and nothing else; p1 is not used then.
    p1 : float
        A maximum of max(map, p2) is a nucleus if its dynamics are greater, in steps of 1/255 (eq. 4); 0 takes every
        one. The map itself is not rounded to these steps.
    p2 : float
        Pixels of a greater probability belong to nuclei.
    connectivity : int
        4 or 8: one neighbourhood for maxima, paths, flooding and components.
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    split_touching: bool = True
    p1: float = 10.0
    p2: float = 0.5
    connectivity: int = 4
    min_area: int = 0

    maps: ClassVar[tuple[str, ...]] = ("probability",)
    context: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p1) and self.p1 >= 0):
            raise ValueError(f"p1 must be a finite number of at least 0, not {self.p1}")
        if not 0 <= self.p2 < 1:
            raise ValueError(f"p2 must lie in 0..1, not {self.p2}")
        if self.connectivity not in (4, 8):
            raise ValueError(f"connectivity must be 4 or 8, not {self.connectivity}")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0 px, not {self.min_area}")

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the probability exceeds p2, from (1, height, width) maps."""
        return maps[0] > np.float32(self.p2)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1."""
        if self.split_touching:
            h = self.p1 / GREY_LEVELS
            return dynamics_watershed(maps[0], h, self.p2, self.connectivity, mask, self.min_area)
        labels, _ = connected_components(mask & self.foreground(maps), self.connectivity)
        return without_small(labels, self.min_area)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, whose mean over a nucleus is its detection probability."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
