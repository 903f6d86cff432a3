"""Outlines in GeoJSON (QuPath's and anyone's) and in ImageScope's XML, drawn as label images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.annotation_xml import XML_SUFFIX, read_regions
from nuclix.engine.geojson_file import class_name, polygons_of, read_features
from nuclix.ext.ragged import offsets_of

GEOJSON_SUFFIXES = (".geojson", ".geojson.gz", ".zip", ".json", ".json.gz")
OUTLINE_SUFFIXES = (*GEOJSON_SUFFIXES, XML_SUFFIX)
NUCLEUS_TYPES = frozenset({"detection", "cell"})  # QuPath's objectType; annotations and tiles are no nuclei


@dataclass(frozen=True, slots=True)
class Polygons:
    """N features' polygons.

    Attributes
    ----------
    corners : (V, 2) float64
        (row, column) in level-0 pixels, as in the file.
    rings : (R + 1,) int64
        Ring r owns corners ``rings[r]:rings[r + 1]``.
    polygons : (P + 1,) int64
        Polygon p owns rings ``polygons[p]:polygons[p + 1]``: its shell, then its holes.
    values : (P,) int64
        The feature that each polygon is of, from 1 in the order of the file.
    """

    corners: NDArray[np.float64]
    rings: NDArray[np.int64]
    polygons: NDArray[np.int64]
    values: NDArray[np.int64]

    def extent(self, downsample: float) -> tuple[int, int]:
        """Return the height and width of the image from (0, 0), that holds all polygons."""
        if not len(self.corners):
            return 0, 0
        bottom, right = self.corners.max(axis=0) / downsample - 0.5  # centre of the last pixel
        return max(0, math.ceil(bottom)), max(0, math.ceil(right))


def read_polygons(path: Path, wanted: Callable[[Mapping[str, Any]], bool] | None = None) -> Polygons:
    """Read the nuclei of a GeoJSON file, or of ImageScope's XML (see `read_regions`).

    GeoJSON may be a FeatureCollection, a list of features or one feature; plain, gzipped or a zip of ``.geojson``
    files. Where any feature's ``objectType`` (QuPath's) is detection or cell, only these are read, and of
    a cell its nucleus; otherwise every feature with an area is. Points and lines are skipped.

    Parameters
    ----------
    path : Path
        The file.
    wanted : callable, optional
        Takes a feature of GeoJSON; returns whether it may be a nucleus.

    Returns
    -------
    Polygons
        One value a feature.

    Raises
    ------
    DataError
        If the file can't be read or is not GeoJSON.
    """
    if path.name.lower().endswith(XML_SUFFIX):
        rings = read_regions(path)
        corners = np.concatenate(rings) if rings else np.zeros((0, 2))
        ones = np.arange(len(rings) + 1, dtype=np.int64)
        return Polygons(corners, offsets_of([len(ring) for ring in rings]), ones, ones[1:])
    return _collected(_nuclei(path, wanted), path)


def read_class_names(path: Path) -> list[str]:
    """Read the class of each feature that `read_polygons` numbers, in that order; "" for one without.

    QuPath writes ``classification`` as a table with a ``name``, or as a name alone.

    Raises
    ------
    DataError
        If the file can't be read or is not GeoJSON.
    """
    return [class_name(feature.get("properties")) for feature in _nuclei(path)]


def _nuclei(path: Path, wanted: Callable[[Mapping[str, Any]], bool] | None = None) -> list[dict[str, Any]]:
    """Return the features of a file that are nuclei."""
    features = read_features(path)
    if wanted is not None:
        features = [feature for feature in features if wanted(feature)]
    if any(_type_of(feature) in NUCLEUS_TYPES for feature in features):
        features = [feature for feature in features if _type_of(feature) in NUCLEUS_TYPES]
    return features


def _type_of(feature: dict[str, Any]) -> str | None:
    properties = feature.get("properties")
    found = properties.get("objectType") if isinstance(properties, dict) else None
    return found if isinstance(found, str) else None


def _collected(features: Sequence[dict[str, Any]], path: Path) -> Polygons:
    rings: list[NDArray[np.float64]] = []
    ring_counts, values = [], []
    for number, feature in enumerate(features, 1):
        try:
            for polygon in _polygons_of(feature):
                arrays = [np.array(ring, np.float64)[:, 1::-1] for ring in polygon]
                if not all(np.isfinite(array).all() for array in arrays):
                    raise ValueError("a coordinate is not finite")
                rings.extend(arrays)
                ring_counts.append(len(arrays))
                values.append(number)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(f"feature {number} of {path} has no proper geometry: {error}") from error
    corners = np.concatenate(rings) if rings else np.zeros((0, 2))
    return Polygons(
        corners, offsets_of([len(ring) for ring in rings]), offsets_of(ring_counts), np.array(values, np.int64)
    )


def _polygons_of(feature: dict[str, Any]) -> list[list[Any]]:
    return polygons_of(feature.get("nucleusGeometry") or feature.get("geometry") or {})


def rasterise(polygons: Polygons, shape: tuple[int, ...], downsample: float, path: Path) -> NDArray[np.int32]:
    """Draw the polygons as a label image: feature k has the label k.

    A pixel belongs to the polygon that its centre lies in, to the first in the file where there are several; a
    feature that holds no pixel's centre leaves no trace.

    Parameters
    ----------
    polygons : Polygons
        What to draw.
    shape : (int, int)
        Height and width of the image.
    downsample : float
        Level-0 pixels along one pixel of the image.
    path : Path
        Where the polygons are from, for messages.

    Returns
    -------
    (H, W) int32
        The label image.

    Raises
    ------
    DataError
        If a polygon lies wholly outside the image.
    """
    from nuclix.ext.raster import fill_polygons

    corners = polygons.corners / downsample
    if len(polygons.values):
        starts = polygons.rings[polygons.polygons[:-1]]
        low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
        outside = ((high <= 0) | (low >= shape)).any(axis=1)
        if outside.any():
            feature = polygons.values[outside][0]
            raise DataError(
                f"feature {feature} of {path} lies outside the image of {shape[0]} x {shape[1]} px: "
                f"is --downsample {downsample:g} right?"
            )
    return fill_polygons((shape[0], shape[1]), corners, polygons.rings, polygons.polygons, polygons.values)
