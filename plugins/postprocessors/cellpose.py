"""Cellpose: pixels follow predicted flows to sinks; those that meet are one nucleus.

Stringer, Wang, Michaelos, Pachitariu: "Cellpose: a generalist algorithm for cellular segmentation", Nature Methods 18,
2021, Methods: "Mask recovery from vector gradients" and "ROI quality estimation".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.ext.components import connected_components, renamed, without_small
from nuclix.ext.flows import FlowRule, flow_errors, follow_flows
from nuclix.ext.gradient_energy import fill_label_holes

EIGHT = 8
FLOW_SCALE = 5.0  # networks predict five times unit flows


@dataclass(frozen=True, slots=True)
class Cellpose:
    """Post-processor of Cellpose networks.

    Pixels of a sufficient cell probability follow the flows; those that end in one sink are a nucleus. Nuclei whose
    flows differ too much from those of their mask are dropped, holes in masks are filled.

    Flows outside a clump count as 0, and holes are filled only with pixels of the clump; the authors' program follows
    flows into a neighbouring clump and fills holes of the foreground, too.

    Attributes
    ----------
    cell_threshold : float
        Pixels whose logit of the cell probability is greater belong to nuclei (0 in the authors' program).
    flow_threshold : float
        Nuclei of a greater mean squared flow error are dropped (0.4 in the authors' program); 0 keeps all.
    steps : int
        Steps of each pixel (200 in the authors' program).
    min_area : int
        Nuclei of fewer pixels (at the model's scale) are dropped (15 in the authors' program).

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    cell_threshold: float = 0.0
    flow_threshold: float = 0.4
    steps: int = 200
    min_area: int = 15

    maps: ClassVar[tuple[str, ...]] = ("cell_logit", "flow_down", "flow_right")
    context: ClassVar[int] = 0
    has_directions: ClassVar[bool] = True  # mirror images of the maps can't be averaged

    def __post_init__(self) -> None:
        if not math.isfinite(self.cell_threshold):
            raise ValueError(f"cell_threshold must be a finite number, not {self.cell_threshold}")
        if not (math.isfinite(self.flow_threshold) and self.flow_threshold >= 0):
            raise ValueError(f"flow_threshold must be a finite number of at least 0, not {self.flow_threshold}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0 px, not {self.min_area}")

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the cell probability exceeds its threshold, from (3, height, width) maps."""
        return maps[0] > np.float32(self.cell_threshold)

    def split(self, maps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label the nuclei of the clumps in `mask`, from 1."""
        clumps, _ = connected_components(mask, EIGHT)
        labels = follow_flows(maps[1], maps[2], clumps, FlowRule(self.steps, 1 / FLOW_SCALE))
        if self.flow_threshold > 0:
            errors = flow_errors(labels, maps[1], maps[2], 1 / FLOW_SCALE)
            kept = errors <= self.flow_threshold
            labels = renamed(labels, np.where(kept, np.arange(len(kept)), 0))
        # The small ones go before holes are filled, as they might lie in a hole.
        labels = fill_label_holes(without_small(labels, self.min_area), clumps)
        return without_small(labels, 1)

    def score(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cell probability."""
        logit = np.clip(maps[0], np.float32(-80), np.float32(80))
        return 1 / (1 + np.exp(-logit))
