"""StarDist: star-convex polygons from an object probability and distances along rays, by non-maximum suppression.

Schmidt, Weigert, Broaddus, Myers: "Cell detection with star-convex polygons", MICCAI 2018, sections 2.2 and 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.segmentation.detections import Detections
from nuclix.ext.components import connected_components, without_small
from nuclix.ext.star_polygons import Stars, cover_stars, select_stars, stars_at

EIGHT = 8


@dataclass(frozen=True, slots=True)
class StarDist:
    """Post-processor of StarDist networks.

    Every pixel of a sufficient object probability is a candidate: a polygon around that pixel. Candidates are taken
    from the most probable down, and drop those that overlap them. Clumps are the components of all candidates'
    polygons together, so that polygons that overlap are always judged together, wherever blocks were cut.

    The program of the paper's authors measures overlaps between the polygons; here they are counts of pixels.

    Attributes
    ----------
    threshold : float
        Pixels of a greater object probability are candidates (0.5 by default in the authors' program, 0.692 for its
        model of stained tissue).
    overlap : float
        A candidate is dropped if it shares more than this part of the smaller polygon's area with one that was taken
        (0.4 by default in the authors' program, 0.3 for its model of stained tissue).
    rays : int
        Number of distances (32 in the paper).
    max_distance : int
        Longer distances are cut to it, in px at the model's scale: how far a nucleus may reach from its centre.
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    threshold: float = 0.5
    overlap: float = 0.4
    rays: int = 32
    max_distance: int = 64
    min_area: int = 0

    has_directions: ClassVar[bool] = True  # mirror images of the maps can't be averaged

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1):
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}")
        if self.rays < 3:
            raise ValueError(f"rays must be at least 3, not {self.rays}")
        if self.max_distance < 1:
            raise ValueError(f"max_distance must be at least 1 px, not {self.max_distance}")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0 px, not {self.min_area}")

    @property
    def maps(self) -> tuple[str, ...]:
        """The object probability, then the distances along rays from the right (0) through down (a quarter)."""
        return ("probability", *(f"ray_{k}" for k in range(self.rays)))

    @property
    def context(self) -> int:
        """A polygon covers pixels up to the largest distance from its centre."""
        return self.max_distance

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where any candidate's polygon lies, from (1 + rays, height, width) maps."""
        centres = self._centres(maps)
        return cover_stars(self._stars(maps, centres), (maps.shape[1], maps.shape[2])) | centres

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1, from the most probable down."""
        return self.detect(maps, mask).labels

    def detect(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> Detections:
        """Return the labels and the object probability of each nucleus' centre."""
        centres = self._centres(maps) & mask
        clumps, _ = connected_components(mask, EIGHT)
        scores = maps[0][centres]
        labels, taken = select_stars(self._stars(maps, centres), scores, clumps, self.overlap)
        kept = np.bincount(labels.ravel(), minlength=len(taken) + 1)[1:] >= max(self.min_area, 1)
        return Detections(without_small(labels, self.min_area), scores[taken[kept]])

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the object probability, cut to 0..1; nuclei have that of their centre."""
        return np.clip(maps[0], np.float32(0), np.float32(1))

    def _centres(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.isfinite(maps[0]) & (maps[0] > np.float32(self.threshold))

    def _stars(self, maps: NDArray[np.float32], centres: NDArray[np.bool_]) -> Stars:
        return stars_at(centres, maps[1:], self.max_distance)
