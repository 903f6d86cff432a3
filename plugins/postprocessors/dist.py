"""The DIST split: maxima of the predicted distance map by their dynamics, nuclei by watershed (eq. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.dynamics import dynamics_watershed


@dataclass(frozen=True, slots=True)
class Dist:
    """Post-processor of DIST (Naylor et al., IEEE TMI 2018, eq. 4).

    Attributes
    ----------
    p1 : float
        A maximum of max(map, p2) is a nucleus if its dynamics are greater, in px of distance; 0 takes every one. The
        paper's 0 (Table III) is for maps cut to whole pixels, which merges maxima less than about 1 px high; on a
        map of floats 0 splits nuclei at every ripple, so the default is 1.
    p2 : float
        Pixels whose predicted distance is greater belong to nuclei.
    connectivity : int
        4 or 8: one neighbourhood for maxima, paths and flooding.
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    p1: float = 1.0
    p2: float = 0.5
    connectivity: int = 4
    min_area: int = 0

    maps: ClassVar[tuple[str, ...]] = ("distance",)
    context: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p1) and self.p1 >= 0):
            raise ValueError(f"p1 must be a finite number of at least 0, not {self.p1}")
        if not math.isfinite(self.p2):
            raise ValueError(f"p2 must be a finite number, not {self.p2}")
        if self.connectivity not in (4, 8):
            raise ValueError(f"connectivity must be 4 or 8, not {self.connectivity}")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0 px, not {self.min_area}")

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the predicted distance exceeds p2, from (1, height, width) maps."""
        return maps[0] > np.float32(self.p2)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1, in the order of their maxima."""
        return dynamics_watershed(maps[0], self.p1, self.p2, self.connectivity, mask, self.min_area)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the predicted distance cut to 0..1: sure from one pixel inside the outline on."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
