"""The DIST split: maxima of the predicted distance map by their dynamics, nuclei by watershed (eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.label_sums import label_means


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

    score_distance, score_probability : tuple of float
        Knots of the function from a nucleus' mean distance (px) to its detection probability, both rising: the share
        of nuclei that match an annotated one, from held-out images. Without them the score is the mean of the distance
        cut to 0..1, which is no probability.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    p1: float = 1.0
    p2: float = 0.5
    connectivity: int = 4
    min_area: int = 0
    score_distance: tuple[float, ...] = ()
    score_probability: tuple[float, ...] = ()

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
        if len(self.score_distance) != len(self.score_probability):
            raise ValueError("score_distance and score_probability must have equally many values")
        if any(after <= before for before, after in pairwise(self.score_distance)):
            raise ValueError(f"score_distance must rise, not {self.score_distance}")
        if not all(0 <= value <= 1 for value in self.score_probability):
            raise ValueError(f"score_probability must lie in 0..1, not {self.score_probability}")

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the predicted distance exceeds p2, from (1, height, width) maps."""
        return maps[0] > np.float32(self.p2)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1, in the order of their maxima."""
        return dynamics_watershed(maps[0], self.p1, self.p2, self.connectivity, mask, self.min_area)

    def object_scores(self, maps: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64] | None:
        """Return the (N,) calibrated scores of the nuclei with labels 1..N; None without knots."""
        if not self.score_distance:
            return None
        return np.interp(self.raw_scores(maps, labels), self.score_distance, self.score_probability)

    def raw_scores(self, maps: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return (N,) mean predicted distances of the nuclei with labels 1..N, in px."""
        return label_means(labels, maps[0])

    def calibrated(self, raw: Sequence[float], probability: Sequence[float]) -> Mapping[str, Any]:
        """Return the parameters of scores that follow the function through these points."""
        return {"score_distance": list(raw), "score_probability": list(probability)}

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the predicted distance cut to 0..1: sure from one pixel inside the outline on."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
