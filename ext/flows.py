"""Pixels that follow a field of flows to sinks, and how well masks explain their flows: Cellpose's dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _flows
from nuclix.ext._check import as_image, check_shape
from nuclix.ext.boxes import label_boxes


@dataclass(frozen=True, slots=True)
class FlowRule:
    """How pixels move and where they are taken to end together.

    Attributes
    ----------
    steps : int
        Of each pixel.
    scale : float
        Pixels a step for a flow of 1.
    min_sink : int
        More than so many pixels end in the place that a sink grows from.
    min_basin : int
        More than so many pixels end in each place that it grows over.
    """

    steps: int = 200
    scale: float = 1.0
    min_sink: int = 10
    min_basin: int = 2


def follow_flows(
    down: NDArray[np.float32], right: NDArray[np.float32], clumps: NDArray[np.int32], rule: FlowRule
) -> NDArray[np.int32]:
    """Label pixels by the sink that they reach.

    Every pixel of a clump moves along the flows, interpolated bilinearly between pixels, which are 0 outside the
    clump. Where it ends, it counts for the place that its coordinates, rounded down, name. A place is a sink if it
    holds enough pixels and no place within 2 px (of a square) holds more. A sink grows by up to 5 px, through corners
    too, over places that hold enough pixels; a place of several sinks belongs to the one that holds the most pixels
    (of equal ones, the first in raster order).

    Parameters
    ----------
    down, right : (H, W) float32
        Flows; a flow that is not finite counts as 0.
    clumps : (H, W) int32
        Labels of clumps from 1; 0 is background. Pixels never meet those of another clump.
    rule : FlowRule
        How they move.

    Returns
    -------
    (H, W) int32
        0 on background and where no sink was reached; else the sink's number, which need not be used by any pixel.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not images of one shape.
    """
    owners = as_image(clumps, "clumps", (np.int32,))
    flows = [_finite(array, name, owners.shape) for array, name in ((down, "down"), (right, "right"))]
    out = np.zeros(owners.shape, np.int32)
    if out.size:
        boxes = label_boxes(owners, int(owners.max()))
        _flows.follow_flows(
            flows[0], flows[1], owners, boxes, rule.steps, rule.scale, rule.min_sink, rule.min_basin, out
        )
    return out


def flow_errors(
    labels: NDArray[np.int32], down: NDArray[np.float32], right: NDArray[np.float32], scale: float
) -> NDArray[np.float64]:
    """Return how far flows are from those that each mask would have.

    Heat is added at a mask's middle (the pixel nearest to its median row and column), and averaged over 3 x 3 pixels of
    the mask, twice as often as the mask is high and wide. The unit vectors along the gradient of log(1 + heat) are
    the mask's flows.

    Parameters
    ----------
    labels : (H, W) int32
        Masks from 1; 0 is background.
    down, right : (H, W) float32
        Flows; a flow that is not finite counts as 0.
    scale : float
        What the flows are multiplied by to be of unit length.

    Returns
    -------
    (N + 1,) float64
        Mean over each mask of the squared length of the difference; 0 for the background and for numbers that no
        pixel has.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not images of one shape.
    """
    image = as_image(labels, "labels", (np.int32,))
    flows = [_finite(array, name, image.shape) for array, name in ((down, "down"), (right, "right"))]
    if not image.size:
        return np.zeros(1)
    boxes = label_boxes(image, int(image.max()))
    errors = np.zeros(len(boxes))
    _flows.flow_errors(image, boxes, flows[0], flows[1], scale, errors)
    return errors


def _finite(array: NDArray[np.float32], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    image = as_image(array, name, (np.float32,))
    check_shape(image, shape, name)
    return image if np.isfinite(image).all() else np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
