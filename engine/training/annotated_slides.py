"""Training images from annotated regions of slides, and from arrays as PanNuke, Lizard and CoNIC have them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import DataError, OutputError
from nuclix.engine.evaluation.polygons import Polygons, read_polygons
from nuclix.engine.geojson_file import class_name
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.region_file import SlideRegion, read_regions
from nuclix.engine.slide.view import SlideView, slide_bounds
from nuclix.engine.training.contracts import Annotated
from nuclix.ext.ragged import offsets_of

MAX_EDGE = 8192  # px of one region at the training scale; its image is held in memory
RECTANGLE_CORNERS = 5  # of a closed ring
INSTANCE_AND_CLASS = 2  # channels of Lizard's and CoNIC's label arrays
NDIM_LABELS, NDIM_MAPS = 3, 4  # (N, H, W) and (N, H, W, C)


@dataclass(slots=True)
class DatasetWriter:
    """Writes a data folder for ``nuclix train``: images/, labels/, images.csv and groups.csv.

    Attributes
    ----------
    folder : Path
        Must hold neither images/ nor labels/.
    """

    folder: Path
    _rows: list[tuple[str, float, str]] = field(default_factory=list)

    def open(self) -> None:
        """Make the folders; raise `OutputError` where they exist or can't be made."""
        try:
            for kind in ("images", "labels"):
                (self.folder / kind).mkdir(parents=True)
        except FileExistsError as error:
            raise OutputError(f"{error.filename}: is there already; choose another folder") from error
        except OSError as error:
            raise OutputError(f"{self.folder}: can't be written ({error.strerror or error})") from error

    def add(self, item: Annotated, mpp: float, group: str) -> None:
        """Write an image with its labels; `group` is what must stay on one side of a split."""
        from PIL import Image

        depth = np.uint16 if item.labels.max(initial=0) <= np.iinfo(np.uint16).max else np.int32
        suffix = "png" if depth is np.uint16 else "tif"
        try:
            Image.fromarray(item.image).save(self.folder / "images" / f"{item.name}.png")
            Image.fromarray(item.labels.astype(depth)).save(self.folder / "labels" / f"{item.name}.{suffix}")
        except OSError as error:
            raise OutputError(f"{self.folder}: can't be written ({error.strerror or error})") from error
        self._rows.append((item.name, mpp, group))

    def close(self) -> None:
        """Write the tables."""
        tables = {
            "images.csv": [("image", "mpp"), *((name, f"{mpp:g}") for name, mpp, _ in self._rows)],
            "groups.csv": [("image", "group"), *((name, group) for name, _, group in self._rows)],
        }
        for name, rows in tables.items():
            with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)


def annotated_regions(
    reader: SlideReader, scales: tuple[Scale, Scale], annotations: Path, region_class: str | None
) -> Iterator[Annotated]:
    """Cut the annotated regions of a slide at a training scale, with the nuclei outlined in them.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    scales : (Scale, Scale)
        What the images shall have, and the slide's own.
    annotations : Path
        GeoJSON as QuPath exports it. Where it has detections or cells, these are the nuclei, else all annotations that
        are no regions.
    region_class : str or None
        The class of the annotations that are regions; None takes every rectangle.

    Yields
    ------
    Annotated
        One per region, named ``SLIDE_X_Y``. Nuclei that reach over its edge are cut there. Pixels of a region's
        rectangle that lie outside the region itself are white and hold no nuclei.

    Raises
    ------
    DataError
        If there is no region, one is too large or lies outside the slide, or an outline is broken.
    """
    view = SlideView(reader, *scales)
    regions = [region for region in read_regions(annotations) if _is_region(region, region_class)]
    if not regions:
        wanted = "rectangles" if region_class is None else f"annotations of the class {region_class}"
        raise DataError(f"{annotations}: has no {wanted}; draw one around each field whose nuclei are all outlined")
    nuclei = read_polygons(annotations, lambda feature: not _is_region_feature(feature, region_class))
    for region in regions:
        yield _cut(view, region, nuclei, annotations)


def _is_region(region: SlideRegion, region_class: str | None) -> bool:
    if region_class is not None:
        return region.kind.name.casefold() == region_class.casefold()
    return bool(region.shape.equals(region.shape.envelope))


def _is_region_feature(feature: Mapping[str, Any], region_class: str | None) -> bool:
    """Return whether a GeoJSON feature is a region, as `_is_region` says of what was read of it."""
    if region_class is not None:
        return class_name(feature.get("properties")).casefold() == region_class.casefold()
    geometry = feature.get("geometry") or {}
    if geometry.get("type") != "Polygon" or len(geometry.get("coordinates") or ()) != 1:
        return False
    ring = [tuple(corner[:2]) for corner in geometry["coordinates"][0]]
    (xs, ys) = ({corner[axis] for corner in ring} for axis in (0, 1))
    return len(ring) == RECTANGLE_CORNERS and len(xs) == len(ys) == 2 and len(set(ring)) == RECTANGLE_CORNERS - 1


def _cut(view: SlideView, region: SlideRegion, nuclei: Polygons, path: Path) -> Annotated:
    from nuclix.ext.raster import fill_polygons

    bounds = slide_bounds(view.info)
    left, top, right, bottom = region.shape.bounds
    corner = np.array([bounds.row, bounds.col]) / view.downsample
    low = np.round(np.array([top, left]) / view.downsample + corner).astype(int)
    high = np.round(np.array([bottom, right]) / view.downsample + corner).astype(int)
    box = Box.between(*map(int, low), *map(int, high))
    if not box.intersect(view.box).area:
        raise DataError(f"{path}: {region.name} lies outside of the slide")
    if max(box.shape) > MAX_EDGE:
        raise DataError(f"{path}: {region.name} is {box.width} x {box.height} px; at most {MAX_EDGE} px a side")
    image = view.read(box)
    shift = corner - np.array([box.row, box.col])
    inside = _near(nuclei, shift, view.downsample, box.shape)
    corners = inside.corners / view.downsample + shift
    labels = fill_polygons(box.shape, corners, inside.rings, inside.polygons, inside.values)
    outside = ~_mask(region, shift, view.downsample, box.shape)
    image[outside], labels[outside] = 255, 0
    slide = view.info.path.stem
    return Annotated(f"{slide}_{round(left)}_{round(top)}", image, _numbered(labels))


def _near(nuclei: Polygons, shift: NDArray[np.float64], downsample: float, shape: tuple[int, int]) -> Polygons:
    """Return the polygons that may touch an image of this shape."""
    if not len(nuclei.values):
        return nuclei
    corners = nuclei.corners / downsample + shift
    starts = nuclei.rings[nuclei.polygons[:-1]]
    low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
    kept = np.flatnonzero(~((high <= 0) | (low >= shape)).any(axis=1))
    rings = np.concatenate([np.arange(nuclei.polygons[p], nuclei.polygons[p + 1]) for p in kept] or [np.empty(0, int)])
    points = np.concatenate([np.arange(nuclei.rings[r], nuclei.rings[r + 1]) for r in rings] or [np.empty(0, int)])
    return Polygons(
        nuclei.corners[points],
        offsets_of(np.diff(nuclei.rings)[rings]),
        offsets_of(np.diff(nuclei.polygons)[kept]),
        nuclei.values[kept],
    )


def _mask(
    region: SlideRegion, shift: NDArray[np.float64], downsample: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which pixels of an image have their centre in the region."""
    import shapely

    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    shapely.prepare(region.shape)
    found: NDArray[np.bool_] = shapely.contains_xy(
        region.shape, (cols - shift[1]) * downsample, (rows - shift[0]) * downsample
    )
    return found


def _numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels 1..N in their order, without gaps."""
    present, places = np.unique(labels, return_inverse=True)
    return (places.reshape(labels.shape) + (0 if 0 in present else 1)).astype(np.int32)


def annotated_arrays(images: Path, labels: Path) -> Iterator[Annotated]:
    """Read images and labels from two NumPy files.

    Parameters
    ----------
    images : Path
        ``.npy``, (N, H, W, 3), RGB in 0..255 of any type.
    labels : Path
        ``.npy``: (N, H, W) instance numbers; (N, H, W, 2) instance number and class (Lizard, CoNIC); or (N, H, W, C)
        one map of instance numbers per class, the last of which is background (PanNuke).

    Yields
    ------
    Annotated
        Named after the file of the images, with the number.

    Raises
    ------
    DataError
        If a file can't be read or the shapes do not fit.
    """
    pictures, numbers = _array(images), _array(labels)
    if pictures.ndim != NDIM_MAPS or pictures.shape[3] != 3:
        raise DataError(f"{images}: must be (N, H, W, 3), not {pictures.shape}")
    if numbers.ndim not in (NDIM_LABELS, NDIM_MAPS) or numbers.shape[:3] != pictures.shape[:3]:
        raise DataError(f"{labels}: {numbers.shape} does not fit the images, {pictures.shape}")
    instances = _instances_of(numbers.shape)
    digits = len(str(len(pictures)))
    for index in range(len(pictures)):
        picture = np.clip(np.rint(pictures[index]), 0, 255).astype(np.uint8)
        yield Annotated(f"{images.stem}_{index:0{digits}d}", picture, _numbered(instances(numbers[index])))


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: can't be read as a NumPy array: {error}") from error
    return array


def _instances_of(shape: Sequence[int]) -> Callable[[NDArray[Any]], NDArray[np.int32]]:
    """Return the function from one entry of a label array of this shape to (H, W) instance numbers."""
    if len(shape) == NDIM_LABELS:
        return lambda entry: entry.astype(np.int32)
    if shape[3] == INSTANCE_AND_CLASS:
        return lambda entry: entry[..., 0].astype(np.int32)
    return _by_class


def _by_class(maps: NDArray[Any]) -> NDArray[np.int32]:
    """Return instance numbers of (H, W, C) maps by class; where two classes claim a pixel the first has it."""
    labels = np.zeros(maps.shape[:2], np.int32)
    for channel in range(maps.shape[2] - 1):
        found = maps[..., channel].astype(np.int32)
        taken = (found > 0) & (labels == 0)
        labels[taken] = found[taken] + labels.max()
    return labels
