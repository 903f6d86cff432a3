"""Regions of a slide: annotations of a GeoJSON file as QuPath writes it, or boxes.

Shapes are shapely geometries in level-0 pixels, (x, y), counted from the corner of what QuPath shows of the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DataError, UsageError
from nuclix.engine.geojson_file import class_name, read_features
from nuclix.engine.model_card import ObjectClass

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

# QuPath's class for regions without another one, and its colour there.
UNCLASSIFIED = ObjectClass("Region*", (0, 0, 180))
NO_COLOR = (128, 128, 128)
# Objects of a QuPath export that are no regions.
_OBJECTS = frozenset(("detection", "cell", "tile", "tma_core"))
_AREAS = ("Polygon", "MultiPolygon")
_BOX_NUMBERS = 4
_RING_CORNERS = 3
_BYTE, _BITS = 0xFF, 8
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class SlideRegion:
    """A region of a slide.

    Attributes
    ----------
    name : str
        Its name, or a number where it has none.
    kind : ObjectClass
        Its class.
    shape : shapely geometry
        A Polygon or MultiPolygon.
    """

    name: str
    kind: ObjectClass
    shape: BaseGeometry


def read_regions(path: Path) -> tuple[SlideRegion, ...]:
    """Read the annotations of a GeoJSON file that have an area.

    Detections and cells are passed over, so that an export of all objects will do.

    Parameters
    ----------
    path : Path
        ``.geojson``, ``.json``, ``.geojson.gz`` or a zip: a FeatureCollection, a list of features, a feature or a
        geometry.

    Returns
    -------
    tuple of SlideRegion
        In the order of the file.

    Raises
    ------
    DataError
        If the file can't be read, is no GeoJSON or has no annotation with an area; the message names the file.
    """
    found = []
    for number, feature in enumerate(read_features(path), 1):
        region = _region(feature, number, path)
        if region is not None:
            found.append(region)
    if not found:
        raise DataError(f"{path}: has no annotation with an area (a Polygon or MultiPolygon that is no detection)")
    return tuple(found)


def _region(feature: Mapping[str, Any], number: int, path: Path) -> SlideRegion | None:
    properties, geometry = feature.get("properties") or {}, feature.get("geometry") or {}
    if not isinstance(properties, dict) or not isinstance(geometry, dict):
        raise DataError(f"{path}: feature {number} is not a GeoJSON feature")
    if properties.get("objectType", properties.get("object_type")) in _OBJECTS or geometry.get("type") not in _AREAS:
        return None
    shape = _shape(geometry, f"{path}: feature {number}")
    if shape is None:
        return None
    return SlideRegion(str(properties.get("name") or f"Region {number}"), _kind(properties), shape)


def _kind(properties: Mapping[str, Any]) -> ObjectClass:
    given, name = properties.get("classification"), class_name(properties)
    if not name:
        return UNCLASSIFIED
    facts = given if isinstance(given, dict) else {}
    color = facts.get("color")
    packed = facts.get("colorRGB")
    if isinstance(packed, int):  # QuPath before 0.4: a signed 32-bit number, alpha in its highest byte
        color = [packed >> shift & _BYTE for shift in (2 * _BITS, _BITS, 0)]
    try:
        red, green, blue = (min(max(int(value), 0), _BYTE) for value in color or NO_COLOR)
    except (TypeError, ValueError):
        red, green, blue = NO_COLOR
    return ObjectClass(str(name), (red, green, blue))


def _shape(geometry: Mapping[str, Any], where: str) -> BaseGeometry | None:
    """Return the area of a geometry; None where it has none."""
    import numpy as np
    import shapely

    polygons = geometry.get("coordinates")
    polygons = [polygons] if geometry["type"] == "Polygon" else polygons
    parts = []
    try:
        for polygon in polygons or ():
            rings = [np.array([corner[:2] for corner in ring], np.float64) for ring in polygon]
            rings = [ring for ring in rings if len(ring) >= _RING_CORNERS]
            if rings and not all(np.isfinite(ring).all() for ring in rings):
                raise ValueError("a coordinate is not finite")
            if rings:
                parts.append(shapely.make_valid(shapely.Polygon(rings[0], rings[1:])))
    except (TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{where}: its coordinates can't be used ({error})") from error
    return area_of(parts)


def area_of(shapes: Iterable[BaseGeometry]) -> BaseGeometry | None:
    """Return the union of what has an area among shapes, or None."""
    import shapely

    parts = [part for shape in shapes for part in shapely.get_parts(shape, return_index=False)]
    flat = [inner for part in parts for inner in shapely.get_parts(part)]
    areas = [part for part in flat if part.geom_type == "Polygon" and part.area > 0]
    if not areas:
        return None
    return areas[0] if len(areas) == 1 else shapely.union_all(areas)


def box_regions(boxes: Sequence[str]) -> tuple[SlideRegion, ...]:
    """Return the regions of boxes given as ``X,Y,WIDTH,HEIGHT``.

    Raises
    ------
    UsageError
        If one has not four numbers, or no area.

    Examples
    --------
    >>> box_regions(["10,20,300,400"])[0].shape.bounds
    (10.0, 20.0, 310.0, 420.0)
    """
    import shapely

    found = []
    for text in boxes:
        try:
            x, y, width, height = (float(word) for word in text.split(","))
        except ValueError:
            raise UsageError(
                f"--region takes X,Y,WIDTH,HEIGHT in pixels of the full resolution, not {text!r}"
            ) from None
        if not (width > 0 and height > 0 and abs(x) + abs(y) + width + height < float("inf")):
            raise UsageError(f"--region {text}: width and height must be positive")
        found.append(SlideRegion(f"Region {text}", UNCLASSIFIED, shapely.box(x, y, x + width, y + height)))
    return tuple(found)


def chosen_regions(
    regions: Sequence[SlideRegion], include: Sequence[str], exclude: Sequence[str], where: str
) -> tuple[SlideRegion, ...]:
    """Return the regions of some classes or names, without the areas of others.

    Parameters
    ----------
    regions : sequence of SlideRegion
        All regions of a slide.
    include : sequence of str
        Classes or names of those to take; empty takes all that are not excluded.
    exclude : sequence of str
        Classes or names of those whose areas are cut out.
    where : str
        The file, for messages.

    Returns
    -------
    tuple of SlideRegion
        At least one.

    Raises
    ------
    DataError
        If none is left; the message lists the classes and names that there are.
    """
    import shapely

    def named(names: Sequence[str]) -> Callable[[SlideRegion], bool]:
        wanted = {name.casefold() for name in names}
        return lambda region: bool({region.name.casefold(), region.kind.name.casefold()} & wanted)

    is_in, is_out = named(include), named(exclude)
    left = [region for region in regions if not is_out(region) and (is_in(region) or not include)]
    if not left:
        known = list(dict.fromkeys(name for region in regions for name in (region.kind.name, region.name)))
        more = ", ..." if len(known) > _NAMES_SHOWN else ""
        raise DataError(f"{where}: no region is left; it has {', '.join(known[:_NAMES_SHOWN])}{more}")
    holes = [region.shape for region in regions if is_out(region)]
    if not holes:
        return tuple(left)
    hole = shapely.union_all(holes)
    cut = [(region, area_of([shapely.difference(region.shape, hole)])) for region in left]
    kept = tuple(replace(region, shape=shape) for region, shape in cut if shape is not None)
    if not kept:
        raise DataError(f"{where}: no region is left; --region-exclude {','.join(exclude)} covers all of them")
    return kept
