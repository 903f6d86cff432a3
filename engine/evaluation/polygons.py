"""Outlines in GeoJSON (QuPath's and anyone's) and in ImageScope's XML, drawn as label images."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.annotation_xml import XML_SUFFIX, read_regions
from nuclix.ext.ragged import offsets_of

GEOJSON_SUFFIXES = (".geojson", ".geojson.gz", ".zip", ".json", ".json.gz")
OUTLINE_SUFFIXES = (*GEOJSON_SUFFIXES, XML_SUFFIX)
MAX_UNPACKED = 2 << 30  # bytes of a compressed file's JSON: some three million nuclei
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


def class_name(properties: Any) -> str:
    """Return the class of a GeoJSON feature with these properties; "" for one without."""
    kind = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(kind, dict):
        kind = kind.get("name") or ": ".join(map(str, kind.get("names") or ()))
    return kind if isinstance(kind, str) else ""


def _nuclei(path: Path, wanted: Callable[[Mapping[str, Any]], bool] | None = None) -> list[dict[str, Any]]:
    """Return the features of a file that are nuclei."""
    try:
        features = [feature for text in _texts(path) for feature in _features(json.loads(text))]
    except RecursionError as error:
        raise DataError(f"{path} is not GeoJSON: it is nested too deeply") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError, RuntimeError) as error:
        raise DataError(f"{path} can't be read: {error}") from error  # RuntimeError: of encrypted zip files
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    except TypeError as error:
        raise DataError(f"{path} is not GeoJSON: {error}") from error
    if wanted is not None:
        features = [feature for feature in features if wanted(feature)]
    if any(_type_of(feature) in NUCLEUS_TYPES for feature in features):
        features = [feature for feature in features if _type_of(feature) in NUCLEUS_TYPES]
    return features


def _texts(path: Path) -> Iterator[bytes]:
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            entries = sorted(entry for entry in archive.namelist() if entry.lower().endswith(".geojson"))
            if not entries:
                raise DataError(f"{path} holds no .geojson file")
            for entry in entries:
                with archive.open(entry) as file:
                    yield _bounded(file, path)
    elif name.endswith(".gz"):
        with gzip.open(path) as unpacked:
            yield _bounded(cast(IO[bytes], unpacked), path)
    else:
        yield path.read_bytes()


def _bounded(file: IO[bytes], path: Path) -> bytes:
    """Read a compressed file, which may unpack to any size."""
    content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise DataError(f"{path} unpacks to more than {MAX_UNPACKED >> 30} GB; split it")
    return content


def _features(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    elif isinstance(document, dict) and document.get("type") == "Feature":
        document = [document]
    if not isinstance(document, list) or not all(isinstance(feature, dict) for feature in document):
        raise TypeError("there is neither a FeatureCollection nor a list of features")
    return document


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
    geometry = feature.get("nucleusGeometry") or feature.get("geometry") or {}
    if geometry.get("type") == "Polygon":
        return [geometry["coordinates"]] if geometry["coordinates"] else []
    if geometry.get("type") == "MultiPolygon":
        return [polygon for polygon in geometry["coordinates"] if polygon]
    return []


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
