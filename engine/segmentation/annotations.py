"""Tissue as annotations: an outline, its area, and how many nuclei lie in it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Annotation, ObjectClass, SlideHeader
from nuclix.engine.slide.mask_polygons import mask_regions, polygon_area
from nuclix.engine.slide.tissue import TissueMask

TISSUE = ObjectClass("Tissue", (0, 150, 136))  # green, away from the hues of the stains
# Smaller pieces and holes are specks of dirt and gaps between cells: a tenth of a millimetre square.
MIN_REGION_UM2 = 10_000.0
UM2_PER_MM2 = 1e6


def tissue_annotations(
    header: SlideHeader, tissue: TissueMask, firsts: Iterable[NDArray[np.int64]] | None = None
) -> tuple[Annotation, ...]:
    """Return one annotation per piece of tissue of `MIN_REGION_UM2` or more.

    Its area is that of the outline, which is up to two pixels of the tissue mask (16 um) wider than the tissue. A
    nucleus counts where its first pixel lies.

    Parameters
    ----------
    header : SlideHeader
        The slide.
    tissue : TissueMask
        Its tissue.
    firsts : iterable of (N, 2) int64, optional
        First pixels of the objects, at the model's scale; without them, annotations have no number of nuclei.

    Returns
    -------
    tuple of Annotation
        In order of first pixel.
    """
    scale = tissue.downsample * header.downsample  # level-0 pixels along a pixel of the mask
    top, left = (max(0, math.floor(start / scale)) for start in header.origin)
    extent = header.shape if all(header.shape) else tuple(edge * scale for edge in tissue.mask.shape)
    bottom, right = (math.ceil((start + length) / scale) for start, length in zip(header.origin, extent, strict=True))
    unit = (header.mpp or 1.0) * scale
    min_pixels = max(1, round(MIN_REGION_UM2 / unit**2)) if header.mpp else 1
    regions = mask_regions(tissue.mask[top:bottom, left:right], min_pixels)
    counts = np.zeros(len(regions.polygons) + 1, np.int64)
    for first in firsts or ():
        place = (first // tissue.downsample).astype(np.int64) - (top, left)
        inside = ((place >= 0) & (place < regions.labels.shape)).all(axis=1)
        row, col = place[inside].T
        counts += np.bincount(regions.labels[row, col], minlength=len(counts))
    corner = np.array([left * scale - header.origin[1], top * scale - header.origin[0]])
    limits = np.array([extent[1], extent[0]])
    annotations = []
    for number, (polygon, count) in enumerate(zip(regions.polygons, counts[1:].tolist(), strict=True), 1):
        rings = tuple(np.clip(ring * scale + corner, 0, limits) for ring in polygon)
        measurements = _measurements(polygon_area(rings), None if firsts is None else count, header.mpp)
        annotations.append(Annotation(f"Tissue {number}", TISSUE, (rings,), measurements))
    return tuple(annotations)


def _measurements(area: float, nuclei: int | None, mpp: float | None) -> dict[str, float]:
    """Return area, number and density, named like the measurements that QuPath gives annotations."""
    um2 = None if mpp is None else area * mpp**2
    measurements = {"Area px^2": area} if um2 is None else {"Area µm^2": um2}
    if nuclei is not None:
        measurements["Num Nuclei"] = float(nuclei)
        if um2 is not None:
            measurements["Num Nuclei per mm^2"] = nuclei / um2 * UM2_PER_MM2
    return measurements
