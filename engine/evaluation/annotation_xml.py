"""Outlines in Aperio ImageScope's XML, the format that MoNuSeg and Kumar's data set are published in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

XML_SUFFIX = ".xml"
MIN_CORNERS = 3  # fewer enclose no area: ImageScope also writes arrows, rulers and clicks as regions
NEGATIVE = "1"  # value of NegativeROA: a region to leave out


def read_regions(path: Path) -> list[NDArray[np.float64]]:
    """Read the regions of an ImageScope annotation file.

    Parameters
    ----------
    path : Path
        XML with ``Annotation/Regions/Region/Vertices/Vertex`` elements whose attributes X and Y are level-0 pixels.

    Returns
    -------
    list of (V, 2) float64 array
        (row, column) of each region with an area, in the order of the file, not closed; regions that are marked as
        negative are skipped.

    Raises
    ------
    DataError
        If the file can't be read, is not such XML, declares a document type, or a vertex has no finite coordinates.
    """
    from xml.etree.ElementTree import ParseError, fromstring

    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise DataError(f"{path}: declares a document type, which ImageScope's files do not; it is not read")
        root = fromstring(text)
    except (OSError, ParseError, ValueError) as problem:
        raise DataError(f"{path} can't be read as XML: {problem}") from problem
    if root.tag != "Annotations":
        raise DataError(f"{path} is no ImageScope annotation: its root element is {root.tag}, not Annotations")
    rings = [_corners(region, number, path) for number, region in enumerate(_regions(root), 1)]
    return [ring for ring in rings if len(ring) >= MIN_CORNERS]


def _regions(root: Element) -> Iterator[Element]:
    for region in root.iter("Region"):
        if region.get("NegativeROA") != NEGATIVE:
            yield region


def _corners(region: Element, number: int, path: Path) -> NDArray[np.float64]:
    try:
        corners = [(float(vertex.attrib["Y"]), float(vertex.attrib["X"])) for vertex in region.iter("Vertex")]
    except (KeyError, ValueError) as problem:
        raise DataError(f"region {number} of {path} has a vertex without coordinates: {problem}") from problem
    array = np.array(corners, np.float64).reshape(-1, 2)
    if not np.isfinite(array).all():
        raise DataError(f"region {number} of {path} has a coordinate that is not finite")
    return array
