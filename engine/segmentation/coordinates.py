"""Outlines in the coordinates of result files, and their centroids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.segmentation.objects import Objects

DECIMALS = 2  # of coordinates in level-0 pixels, as QuPath writes them


def level0_corners(objects: Objects, header: SlideHeader) -> NDArray[np.float64]:
    """Return the corners of all rings as (x, y) in level-0 pixels from the corner of what QuPath shows.

    Parameters
    ----------
    objects : Objects
        With V corners.
    header : SlideHeader
        Their slide.

    Returns
    -------
    (V, 2) float64
        Rounded like the coordinates of the GeoJSON.
    """
    corners = objects.corners.astype(np.float64) * header.downsample - np.array(header.origin)
    rounded: NDArray[np.float64] = np.round(corners[:, ::-1], DECIMALS)
    return rounded


@dataclass(frozen=True, slots=True)
class Centroids:
    """Centroids of N objects.

    Attributes
    ----------
    points : (N, 2) float64
        (x, y) in the unit of the corners.
    areas : (N,) float64
        Areas of the polygons in that unit squared, holes taken off.
    """

    points: NDArray[np.float64]
    areas: NDArray[np.float64]


def centroids(objects: Objects, corners: NDArray[np.float64]) -> Centroids:
    """Return the centroids of polygons: the integral of (x, y) over the shells less that over the holes.

    Parameters
    ----------
    objects : Objects
        N objects; of their outlines only the offsets and the kinds of rings are used.
    corners : (V, 2) float64
        (x, y) of the rings' corners.

    Returns
    -------
    Centroids
    """
    if not len(objects):
        return Centroids(np.zeros((0, 2)), np.zeros(0))
    starts, ends = objects.offsets[:-1], objects.offsets[1:]
    lengths = ends - starts
    local = corners - np.repeat(corners[starts], lengths, axis=0)  # far from the origin, digits would cancel
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = starts
    after = local[following]
    cross = local[:, 0] * after[:, 1] - after[:, 0] * local[:, 1]
    doubled = np.add.reduceat(cross, starts)
    moments = np.add.reduceat((local + after) * cross[:, None], starts, axis=0) / 6
    sign = np.sign(doubled) * np.where(objects.shells, 1, -1)
    areas = sign * doubled / 2
    moments = sign[:, None] * moments + corners[starts] * areas[:, None]
    total = np.add.reduceat(areas, objects.rings[:-1])
    points = np.add.reduceat(moments, objects.rings[:-1], axis=0) / total[:, None]
    return Centroids(points, total)


def object_ids(objects: Objects, header: SlideHeader) -> list[str]:
    """Return the objects' identifiers: the UUIDs that the GeoJSON has."""
    import uuid

    from nuclix.ext.geojson_text import identifiers

    return identifiers(objects.first, uuid.uuid5(uuid.NAMESPACE_URL, header.namespace).bytes)
