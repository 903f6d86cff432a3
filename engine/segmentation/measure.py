"""Measurements of nuclei, under the names that QuPath gives them, and the objects of a labelled block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.objects import PROBABILITY, Objects
from nuclix.ext.label_sums import label_sums
from nuclix.ext.outlines import Outlines, label_outlines
from nuclix.ext.shapes import shape_measurements


def shape_names(mpp: float | None) -> tuple[str, ...]:
    """Return the names of all measurements in the order in which `measure` gives them.

    Parameters
    ----------
    mpp : float or None
        None where the scale is not known: lengths are then in px.

    Returns
    -------
    tuple of str
        QuPath's names (Analyze > Calculate features > Add shape features; StarDist's extension for the probability).
    """
    unit = "px" if mpp is None else "µm"
    return (
        f"Area {unit}^2",
        f"Length {unit}",
        "Circularity",
        "Solidity",
        f"Max diameter {unit}",
        f"Min diameter {unit}",
        PROBABILITY,
    )


def measure(
    outlines: Outlines | Objects, sums: NDArray[np.float64], mpp: float | None
) -> dict[str, NDArray[np.float64]]:
    """Measure nuclei as QuPath does.

    Area has holes taken off and length has them added; circularity is 4 pi A / P^2 of the shells with their
    holes filled, not clipped; solidity is area over the convex hull's area; the greatest diameter is that of the least
    enclosing circle and the least one is the least width.

    Parameters
    ----------
    outlines : Outlines or Objects
        N outlines in pixels at the model's scale.
    sums : (N,) float64
        Sum of the score map (0..1) over each object's pixels.
    mpp : float or None
        Micrometres along one such pixel; None leaves lengths in pixels.

    Returns
    -------
    dict of str to (N,) float64
        In QuPath's order; every value is finite. A score that is not a number counts as 0.
    """
    shapes = shape_measurements(outlines)
    length = 1.0 if mpp is None else mpp
    probability = np.nan_to_num(sums / outlines.pixels, nan=0.0)
    values = (
        shapes.area * length**2,
        shapes.perimeter * length,
        4 * math.pi * shapes.exterior_area / shapes.exterior_perimeter**2,
        shapes.area / shapes.hull_area,
        shapes.min_bounding_circle_diameter * length,
        shapes.min_width * length,
        np.clip(probability, 0.0, 1.0),
    )
    return dict(zip(shape_names(mpp), values, strict=True))


def objects_of(labels: NDArray[Any], scores: NDArray[np.float32], origin: Box, mpp: float | None) -> Objects:
    """Outline and measure the nuclei of a labelled block.

    Parameters
    ----------
    labels : (H, W) integer array
        0 is background; a label need not be connected.
    scores : (H, W) float32
        The post-processor's score of each pixel, 0..1.
    origin : Box
        Where the block lies on the slide, in pixels at the model's scale; only its first row and column are used.
    mpp : float or None
        Micrometres along one such pixel, or None where the slide does not say.

    Returns
    -------
    Objects
        In canonical order, in slide coordinates at the model's scale; every class is 0.

    Raises
    ------
    ValueError
        If the shapes differ, a label is negative, or the slide's coordinates leave 32 bits.
    """
    outlines = label_outlines(labels)
    corner = np.array([origin.row, origin.col], np.int64)
    limits = np.iinfo(np.int32)
    reach = corner + labels.shape
    if corner.min() < limits.min or reach.max() > limits.max:
        raise ValueError(f"a block at {origin.row}, {origin.col} lies outside 32-bit coordinates")
    return Objects(
        first=outlines.first + corner,
        pixels=outlines.pixels,
        rings=outlines.rings,
        shells=outlines.shells,
        offsets=outlines.offsets,
        corners=outlines.corners + corner.astype(np.int32),
        classes=np.zeros(len(outlines), np.int32),
        measurements=measure(outlines, label_sums(labels, scores), mpp),
    )
