"""The regions of a slide in a run: chosen by its options, nuclei kept and counted by their centroids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Annotation, ObjectClass
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.objects import Objects, centroids, take
from nuclix.engine.segmentation.region import RegionShapes
from nuclix.engine.slide.region_file import SlideRegion, box_regions, chosen_regions, read_regions
from nuclix.engine.slide.side_files import (
    ANNOTATION_SUFFIXES,
    MASK_SUFFIXES,
    required_side_file,
    side_file_hash,
)
from nuclix.engine.slide.tissue import TissueMask
from nuclix.engine.slide.tissue_file import rasterised
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

UM2_PER_MM2 = 1e6


def side_file_hashes(config: RunConfig, slide: Path) -> dict[str, str]:
    """Return the hashes of the files of a slide on which its result depends, by option; empty where there are none."""
    found = {
        "regions": side_file_hash(config.regions, slide, ANNOTATION_SUFFIXES),
        "tissue_mask": side_file_hash(config.tissue_mask, slide, MASK_SUFFIXES),
    }
    return {name: digest for name, digest in found.items() if digest is not None}


def regions_of(config: RunConfig, slide: Path) -> tuple[SlideRegion, ...]:
    """Return the regions of a slide that a run is limited to; none where it is not limited.

    Parameters
    ----------
    config : RunConfig
        The options of the run.
    slide : Path
        The slide.

    Raises
    ------
    SlideError
        If the slide has no file of regions.
    DataError
        If its file can't be used.
    UsageError
        If ``--region`` can't be used.
    """
    boxes = box_regions(config.region)
    if config.regions is None:
        return boxes
    path = required_side_file(config.regions, slide, ANNOTATION_SUFFIXES, "--regions")
    found = chosen_regions(read_regions(path), config.region_class, config.region_exclude, str(path))
    return (*boxes, *found)


@dataclass(frozen=True, slots=True)
class ViewRegions:
    """Regions of a slide at the model's scale.

    Attributes
    ----------
    regions : tuple of SlideRegion
        As they were given.
    shapes : tuple of shapely geometry
        The same in pixels of the view, prepared.
    """

    regions: tuple[SlideRegion, ...]
    shapes: tuple[BaseGeometry, ...]

    @classmethod
    def of(cls, regions: Sequence[SlideRegion], view: SlideView) -> ViewRegions:
        """Place regions, which count from the corner of what QuPath shows, on a view."""
        import shapely

        bounds = slide_bounds(view.info)
        corner = np.array([bounds.col, bounds.row])
        shapes = [shapely.transform(region.shape, lambda xy: (xy + corner) / view.downsample) for region in regions]
        shapely.prepare(shapes)
        return cls(tuple(regions), tuple(shapes))

    def patches(self, margin: int = 0) -> RegionShapes:
        """Return what patches are chosen by: the regions and `margin` pixels around them."""
        return RegionShapes([shape.buffer(margin) for shape in self.shapes] if margin else self.shapes)

    def inside(self, objects: Objects) -> NDArray[np.bool_]:
        """Return (regions, N) bool: whether a nucleus' centroid lies in a region or on its boundary."""
        import shapely

        row, col = centroids(objects).T
        found = np.zeros((len(self.shapes), len(objects)), np.bool_)
        if not len(objects):
            return found
        points = shapely.points(col, row)
        index, region = shapely.STRtree(self.shapes).query(points, "intersects")
        found[region, index] = True
        return found

    def tissue_mm2(self, tissue: TissueMask | None, view: SlideView) -> float:
        """Return the area of the tissue in the regions; of the regions where tissue was not looked for."""
        import shapely

        union = shapely.union_all(list(self.shapes))
        if tissue is None:
            return float(union.area) * view.scale.mpp**2 / UM2_PER_MM2
        if not tissue.mask.any():
            return 0.0
        inside = rasterised([union], (tissue.mask.shape[0], tissue.mask.shape[1]), tissue.downsample)
        share = (tissue.mask & inside).sum() / tissue.mask.sum()
        return tissue.area_mm2 * float(share)


class RegionCounter:
    """Keeps the nuclei of regions, and counts them.

    Parameters
    ----------
    regions : ViewRegions
        The regions.
    classes : sequence of ObjectClass
        Of the objects.
    mpp : float
        Micrometres per pixel at the model's scale.
    """

    def __init__(self, regions: ViewRegions, classes: Sequence[ObjectClass], mpp: float) -> None:
        self._regions = regions
        self._classes = tuple(classes)
        self._mpp = mpp
        self._counts = np.zeros((len(regions.shapes), max(1, len(classes))), np.int64)

    def kept(self, objects: Objects) -> Objects:
        """Return the objects whose centroid lies in any region, and count them in each."""
        inside = self._regions.inside(objects)
        for row, mask in enumerate(inside):
            self._counts[row] += np.bincount(objects.classes[mask], minlength=self._counts.shape[1])
        return take(objects, np.flatnonzero(inside.any(axis=0)))

    def facts(self) -> list[dict[str, Any]]:
        """Return what the record states of each region: name, class, area, numbers of nuclei, density."""
        found = []
        for region, shape, counts in zip(self._regions.regions, self._regions.shapes, self._counts, strict=True):
            area = float(shape.area) * self._mpp**2 / UM2_PER_MM2
            nuclei = int(counts.sum())
            named = {kind.name: int(count) for kind, count in zip(self._classes, counts, strict=False)}
            found.append(
                {
                    "name": region.name,
                    "class": region.kind.name,
                    "area_mm2": area,
                    "nuclei": nuclei,
                    "nuclei_per_mm2": nuclei / area,
                    "nuclei_by_class": named,
                }
            )
        return found


def stored_regions(regions: Sequence[SlideRegion]) -> bytes:
    """Return regions as JSON: GeoJSON geometries with name, class and colour."""
    import shapely

    items = [
        {
            "name": region.name,
            "class": region.kind.name,
            "color": list(region.kind.color),
            "geometry": json.loads(shapely.to_geojson(region.shape)),
        }
        for region in regions
    ]
    return json.dumps(items).encode()


def region_annotations(content: bytes, facts: Sequence[Mapping[str, Any]]) -> tuple[Annotation, ...]:
    """Return stored regions as annotations with their counts as measurements.

    Parameters
    ----------
    content : bytes
        From `stored_regions`.
    facts : sequence of mapping
        From `RegionCounter.facts`, in the same order.
    """
    found = []
    for item, counted in zip(json.loads(content), facts, strict=True):
        geometry = item["geometry"]
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        rings = tuple(tuple(np.array(ring[:-1], np.float64) for ring in polygon) for polygon in polygons)
        red, green, blue = item["color"]
        found.append(
            Annotation(item["name"], ObjectClass(item["class"], (red, green, blue)), rings, _measurements(counted))
        )
    return tuple(found)


def _measurements(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return area, numbers and density of a region, named like those of tissue annotations."""
    nuclei, by_class = facts["nuclei"], facts["nuclei_by_class"]
    found = {
        "Area µm^2": facts["area_mm2"] * UM2_PER_MM2,
        "Num Nuclei": float(nuclei),
        "Num Nuclei per mm^2": facts["nuclei_per_mm2"],
    }
    if len(by_class) > 1:
        found |= {f"Num {name}": float(count) for name, count in by_class.items()}
        found |= {f"{name} %": 100 * count / nuclei for name, count in by_class.items() if nuclei}
    return found
