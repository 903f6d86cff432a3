"""Interior and boundary: the three-class networks of the DSB 2018 and MoNuSeg challenges.

Caicedo et al., "Evaluation of deep learning strategies for nucleus segmentation in fluorescence images", Cytometry A
95, 2019 (interior, boundary, background); Kumar et al., "A multi-organ nucleus segmentation challenge", IEEE TMI 39,
2020 (nuclei less contours as markers of a watershed, as most of its winners do).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components, without_small
from nuclix.ext.watershed import watershed

FORMS = ("interior", "nucleus")
STRIP = 64  # rows whose sums stay in the cache
FOUR = 4  # one neighbourhood for markers, pieces and growth: labels are 4-connected


@dataclass(frozen=True, slots=True)
class Boundary:
    """Post-processor of networks that predict nuclei with their boundaries.

    Two kinds of maps are usual, and `form` says which a network gives:

    - interior: three classes that exclude each other (softmax), of which interior and boundary are read. A pixel
      belongs to a nucleus if both together exceed `threshold`, to a marker if the interior exceeds `marker`. With
      thresholds of 0.5 these are the pixels of the most likely class, but for pixels where no class reaches 0.5.
    - nucleus: a map of whole nuclei and one of their boundaries (two sigmoids). A pixel belongs to a nucleus if the
      first exceeds `threshold`, to a marker if the first less the second exceeds `marker`.

    Markers are grown over the nuclei's pixels by a watershed of the boundary's probability less the nucleus'.

    Attributes
    ----------
    form : str
        interior, or nucleus.
    threshold : float
        Pixels of a greater nucleus probability belong to nuclei.
    marker : float
        Pixels of a greater marker probability are markers.
    min_marker : int
        Markers of fewer pixels do not count.
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped.
    keep_unmarked : bool
        Whether a connected piece without a marker is a nucleus, such as a small one that is all boundary; the papers'
        programs drop it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    form: str = "interior"
    threshold: float = 0.5
    marker: float = 0.5
    min_marker: int = 0
    min_area: int = 0
    keep_unmarked: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, not {self.form!r}")
        for name in ("threshold", "marker"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, not {getattr(self, name)}")
        for name in ("min_marker", "min_area"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0 px, not {getattr(self, name)}")

    @property
    def maps(self) -> tuple[str, ...]:
        """The nuclei's map by its form, and the boundary."""
        return (self.form, "boundary")

    @property
    def context(self) -> int:
        """A pixel depends on its own maps alone."""
        return 0

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the nucleus probability exceeds its threshold, from (2, height, width) maps."""
        mask = np.empty(maps.shape[1:], bool)
        for start in range(0, len(mask), STRIP):
            rows = slice(start, start + STRIP)
            np.greater(self._nucleus(maps[:, rows]), np.float32(self.threshold), out=mask[rows])
        return mask

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1."""
        mask = np.ascontiguousarray(mask)
        inside = maps[0] if self.form == "interior" else maps[0] - maps[1]
        marked = inside > np.float32(self.marker)
        marked &= mask
        markers, _ = connected_components(marked, FOUR, self.min_marker)
        if self.keep_unmarked:
            _mark_pieces(markers, mask)
        labels = watershed(maps[1] - maps[0], markers, mask, FOUR, overwrite_markers=True)
        return _large(labels, self.min_area)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the nucleus probability, cut to 0..1."""
        return np.clip(self._nucleus(maps), np.float32(0), np.float32(1))

    def _nucleus(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of a nucleus, its boundary included."""
        return maps[0] + maps[1] if self.form == "interior" else maps[0]


def _large(labels: NDArray[np.int32], smallest: int) -> NDArray[np.int32]:
    """Drop labels of fewer pixels; of labels without gaps all have one."""
    return without_small(labels, smallest) if smallest > 1 else labels


def _mark_pieces(markers: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
    """Make a marker of every 4-connected piece of the mask that has none."""
    pieces, count = connected_components(mask, FOUR)
    unmarked = np.ones(count + 1, bool)
    unmarked[pieces[markers > 0]] = False
    unmarked[0] = False
    alone = unmarked[pieces]
    markers[alone] = pieces[alone] + markers.max(initial=0)
