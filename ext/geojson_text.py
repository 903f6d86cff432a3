"""GeoJSON text of outlines."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nuclix.ext import _text
from nuclix.ext.shapes import MIN_CORNERS, Rings, checked_rings

_MIN_PIXEL = 0.06  # two decimals keep edges apart that are a quarter of a pixel from each other, down to here
_NAMESPACE_BYTES = 16
_MAX_FIRST = 2**31  # identifiers hold 32 bits of row and column


class Named(Rings, Protocol):
    """Outlines with what names and colours them."""

    @property
    def first(self) -> NDArray[np.int64]:
        """(N, 2) row and column of the first pixel, which names the object."""
        ...

    @property
    def classes(self) -> NDArray[np.int32]:
        """(N,) index of each object's class."""
        ...


@runtime_checkable
class WithCells(Protocol):
    """What may be cells with nuclei: the engine's `Objects`."""

    @property
    def cell_offsets(self) -> NDArray[np.int64] | None:
        """(N + 1,) where the boundary of each object's cell begins in `cell_corners`; None where there are no cells."""
        ...

    @property
    def cell_corners(self) -> NDArray[np.float32] | None:
        """(W, 2) row and column of the corners of the boundaries of cells."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureStyle:
    """What all features of a file share.

    Attributes
    ----------
    downsample : float
        Level-0 pixels along one pixel of the outlines, 0.06 or more.
    origin : tuple of float
        (row, column) in level-0 pixels of what is written as (0, 0).
    namespace : bytes
        16 bytes of the UUID in whose name space features are identified.
    properties : tuple of str
        For each class, JSON members of "properties" that come before the measurements, such as
        ``"objectType":"detection"``; may be empty.
    measurements : tuple of str
        Names of the measurements.
    """

    downsample: float
    origin: tuple[float, float]
    namespace: bytes
    properties: tuple[str, ...]
    measurements: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.downsample) and self.downsample >= _MIN_PIXEL):
            raise ValueError(f"two decimals can't tell corners apart that are {self.downsample} px from each other")
        if not all(math.isfinite(value) for value in self.origin):
            raise ValueError(f"the origin {self.origin} is not finite")
        if len(self.namespace) != _NAMESPACE_BYTES:
            raise ValueError(f"a UUID has 16 bytes, not {len(self.namespace)}")


def _checked_columns(
    objects: Named, values: NDArray[np.float64], style: FeatureStyle
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], ...]]:
    rings, shells, offsets, corners = checked_rings(objects)
    first = np.require(objects.first, np.int64, ["C", "A"])
    classes = np.require(objects.classes, np.int32, ["C", "A"])
    values = np.require(values, np.float64, ["C", "A"])
    count = len(rings) - 1
    if first.shape != (count, 2) or classes.shape != (count,) or values.shape != (count, len(style.measurements)):
        raise ValueError(f"the columns of {count} objects don't have a row an object")
    if count and not 0 <= int(classes.min()) <= int(classes.max()) < len(style.properties):
        raise ValueError(f"an object's class is none of the {len(style.properties)}")
    if count and max(int(first.max()), -int(first.min())) >= _MAX_FIRST:
        raise ValueError("a first pixel lies beyond 2^31")
    if count and not bool(shells[rings[:-1]].all()):
        raise ValueError("every object's first ring must be a shell")
    cells, boundaries = _checked_boundaries(objects, corners.dtype, count)
    return (corners, boundaries), (first, rings, shells.view(np.uint8), offsets, classes, values, cells)


def _checked_boundaries(objects: Named, dtype: np.dtype[Any], count: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return offsets and corners of the boundaries of cells, in the nuclei's type; empty where there are none."""
    if not isinstance(objects, WithCells) or objects.cell_offsets is None or objects.cell_corners is None:
        return np.zeros(0, np.int64), np.zeros((0, 2), dtype)
    boundaries = np.require(objects.cell_corners, dtype, ["C", "A"])
    cells = np.require(objects.cell_offsets, np.int64, ["C", "A"])
    least = int(np.diff(cells).min()) if len(cells) > 1 else MIN_CORNERS
    if len(cells) != count + 1 or cells[0] != 0 or cells[-1] != len(boundaries) or least < MIN_CORNERS:
        raise ValueError(f"the boundaries of {count} cells don't fit their corners")
    return cells, boundaries


def feature_text(
    objects: Named, values: NDArray[np.float64], style: FeatureStyle, begin: int = 0, end: int | None = None
) -> bytes:
    """Return GeoJSON features, one a line, with commas between them and none after the last.

    A feature is a Polygon, or a MultiPolygon where the object has several shells; where objects are cells, it is the
    cell's boundary, and this is its member "nucleusGeometry". x is column * downsample - origin column and y is row *
    downsample - origin row in float64, rounded to two decimals as Python's ``round`` does (to nearest, an exact tie to
    even), trailing zeros dropped. Valid outlines stay valid: along pixel edges because rounding is monotone along each
    axis, smooth ones because their edges keep a quarter of a pixel from each other. Measurements have five significant
    digits (whole numbers all of theirs); one that is NaN is left out of its object. The identifier is a UUIDv8 of
    namespace and first pixel, distinct within a namespace by construction.

    Parameters
    ----------
    objects : Named
        N objects, such as the engine's `Objects`.
    values : (N, M) float64
        The measurements.
    style : FeatureStyle
        What they share.
    begin, end : int
        Which objects, as in a slice of them; all by default.

    Returns
    -------
    bytes
        UTF-8 text; empty where no object is asked for.

    Raises
    ------
    ValueError
        If the columns don't fit each other or the style, a measurement is infinite, or a coordinate is beyond 2^33.
    """
    corners, columns = _checked_columns(objects, values, style)
    begin, end, _ = slice(begin, end).indices(len(columns[0]))
    properties = tuple(members.encode() + b"," if members else b"" for members in style.properties)
    names = tuple(json.dumps(name, ensure_ascii=False).encode() + b":" for name in style.measurements)
    transform = np.array([style.downsample, *style.origin])
    return _text.features(columns, *corners, transform, style.namespace, (properties, names), begin, end)


def identifiers(first: NDArray[np.int64], namespace: bytes) -> list[str]:
    """Return the UUIDs that `feature_text` gives to objects.

    Parameters
    ----------
    first : (N, 2) int64
        Row and column of each object's first pixel.
    namespace : bytes
        16 bytes, as in `FeatureStyle`.

    Returns
    -------
    list of str
        N UUIDs (version 8, RFC 9562), distinct where the places are.

    Raises
    ------
    ValueError
        If the namespace does not have 16 bytes, or a place lies beyond 2^31.

    Examples
    --------
    >>> identifiers(np.array([[3, 4]]), bytes(16))
    ['a696662e-cf57-88dd-b400-000000000000']
    """
    first = np.require(first, np.int64, ["C", "A"]).reshape(-1, 2)
    if len(namespace) != _NAMESPACE_BYTES:
        raise ValueError(f"a UUID has 16 bytes, not {len(namespace)}")
    if len(first) and max(int(first.max()), -int(first.min())) >= _MAX_FIRST:
        raise ValueError("a first pixel lies beyond 2^31")
    return _text.identifiers(first, namespace)
