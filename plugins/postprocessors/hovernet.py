"""HoVer-Net: a watershed of the gradients of horizontal and vertical distances to nuclear centres.

Graham et al.: "HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue histology images",
Medical Image Analysis 58, 2019, section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.gradient_energy import EnergyRule, split_by_gradients

LIMITS = ("clump", "fixed")
# Slopes per px of ideal maps after a Sobel filter of 21 weights: at an outline between two nuclei the maps jump from
# 1 to -1, which the filter (standard deviation sqrt(19) / 2 px) turns into -2 / (sqrt(2 pi) sigma); inside a nucleus
# 10 px wide they rise by 2.
FIXED = (-0.37, 0.2)


@dataclass(frozen=True, slots=True)
class HoVerNet:
    """Post-processor of HoVer-Net.

    The slopes of the two maps are large and negative where nuclei touch. Pixels of a nucleus' inside, where neither
    is, are filled and opened to markers, from which the nuclei are flooded.

    The authors' program scales the slopes by their least and largest value in the whole tile, so that its answer
    changes with the tile. Here these limits are those of the clump (`limits="clump"`), or fixed numbers.

    Attributes
    ----------
    threshold : float
        Pixels of at least this nucleus probability belong to nuclei (0.5 in the authors' program).
    energy : float
        Pixels of a smaller energy are inside nuclei (0.4 in the authors' program).
    sobel : int
        Size of the Sobel filter in px: 21 at 0.25 um/px, 11 at 0.5 um/px in the authors' programs.
    min_marker : int
        Markers of fewer pixels do not count (10 in the authors' program).
    min_area : int
        Pieces of the foreground with fewer pixels are dropped (10 in the authors' program).
    limits : str
        clump, or fixed.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    threshold: float = 0.5
    energy: float = 0.4
    sobel: int = 21
    min_marker: int = 10
    min_area: int = 10
    limits: str = "clump"

    maps: ClassVar[tuple[str, ...]] = ("nucleus", "horizontal", "vertical")
    has_directions: ClassVar[bool] = True  # mirror images of the maps can't be averaged

    def __post_init__(self) -> None:
        for name in ("threshold", "energy"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= 1):
                raise ValueError(f"{name} must be greater than 0 and at most 1, not {value}")
        if self.sobel < 3 or self.sobel % 2 == 0:
            raise ValueError(f"sobel must be an odd number of at least 3 px, not {self.sobel}")
        for name in ("min_marker", "min_area"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0 px, not {getattr(self, name)}")
        if self.limits not in LIMITS:
            raise ValueError(f"limits must be one of {', '.join(LIMITS)}, not {self.limits!r}")

    @property
    def context(self) -> int:
        """The Sobel filter looks half its size around a pixel."""
        return self.sobel // 2

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the nucleus probability reaches the threshold, from (3, height, width) maps."""
        return maps[0] >= np.float32(self.threshold)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1; pieces without a marker are dropped."""
        limits = FIXED if self.limits == "fixed" else None
        rule = EnergyRule(self.sobel, self.energy, self.min_marker, self.min_area, limits)
        return split_by_gradients(maps[1], maps[2], mask, rule)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the nucleus probability, cut to 0..1."""
        return np.clip(maps[0], np.float32(0), np.float32(1))
