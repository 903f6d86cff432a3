"""Features of GeoJSON files, which may come from anywhere: within bounds, and with errors that name the file."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from nuclix.engine.errors import DataError

MAX_UNPACKED = 2 << 30  # bytes of a compressed file's JSON: some three million nuclei
_GZIP = b"\x1f\x8b"
_ZIP = b"PK"
_TYPES = ("Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection")


def read_features(path: Path) -> list[dict[str, Any]]:
    """Read the features of a GeoJSON file.

    Parameters
    ----------
    path : Path
        A FeatureCollection, a list of features, a feature or a geometry; plain, gzipped, or a zip of ``.geojson``
        files, which are read in order of their names. The first bytes tell which.

    Returns
    -------
    list of dict
        Features as they stand in the file; only that they are tables is checked.

    Raises
    ------
    DataError
        If the file can't be read or is not GeoJSON; the message names it.
    """
    try:
        return [feature for text in _texts(path) for feature in _features(json.loads(text))]
    except RecursionError as error:
        raise DataError(f"{path} is not a GeoJSON file (nested too deeply)") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:  # the last: of encrypted zips
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{path}: no such file") from error
        raise DataError(f"{path} can't be read: {error}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a GeoJSON file ({error})") from error


def class_name(properties: Any) -> str:
    """Return the class of a feature with these properties; "" for one without.

    QuPath writes ``classification`` as a table with a ``name`` or ``names``, or as a name alone.
    """
    kind = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(kind, dict):
        kind = kind.get("name") or ": ".join(map(str, kind.get("names") or ()))
    return kind if isinstance(kind, str) else ""


def polygons_of(geometry: Mapping[str, Any]) -> list[list[Any]]:
    """Return the polygons of a geometry, each a list of rings; none for points and lines."""
    if geometry.get("type") == "Polygon":
        return [geometry["coordinates"]] if geometry["coordinates"] else []
    if geometry.get("type") == "MultiPolygon":
        return [polygon for polygon in geometry["coordinates"] if polygon]
    return []


def _texts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as start:
        head = start.read(len(_GZIP))
    if head == _ZIP:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(entry for entry in archive.namelist() if entry.lower().endswith(".geojson"))
            if not entries:
                raise DataError(f"{path} holds no .geojson file")
            for entry in entries:
                with archive.open(entry) as file:
                    yield _bounded(file, path)
    elif head == _GZIP:
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
    if isinstance(document, dict) and "features" in document:
        document = document["features"]
    elif isinstance(document, dict) and document.get("type") in ("Feature", *_TYPES):
        document = [document]
    if not isinstance(document, list) or not all(isinstance(feature, dict) for feature in document):
        raise TypeError("no features")
    return [item if item.get("type") not in _TYPES else {"geometry": item} for item in document]
