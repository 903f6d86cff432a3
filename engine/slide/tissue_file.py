"""Tissue that the user gives: a mask as an image of any size, or annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import DataError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.region_file import read_regions
from nuclix.engine.slide.side_files import ANNOTATION_SUFFIXES
from nuclix.engine.slide.tissue import TissueMask, tissue_view
from nuclix.engine.slide.view import SlideView, slide_bounds

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

# Height over width of a mask may differ from the slide's by this fraction, and by a pixel of the mask.
ASPECT_TOLERANCE = 0.02
UM2_PER_MM2 = 1e6


def read_tissue_mask(path: Path, reader: SlideReader, view: SlideView) -> TissueMask:
    """Read the tissue of a slide from a file.

    Parameters
    ----------
    path : Path
        An image whose pixels are not black where there is tissue; it shows what QuPath shows of the slide, at any
        resolution. Or a GeoJSON file: the areas of its annotations are tissue.
    reader : SlideReader
        The open slide.
    view : SlideView
        The slide at the model's scale.

    Returns
    -------
    TissueMask
        At the scale of the masks that are found; a pixel that is tissue in part is tissue.

    Raises
    ------
    DataError
        If the file can't be read, or has other proportions than the slide.
    """
    low = tissue_view(reader, view)
    bounds = slide_bounds(reader.info)
    if path.name.lower().endswith(ANNOTATION_SUFFIXES):
        shapes = [region.shape for region in read_regions(path)]
        mask = rasterised(shapes, (low.height, low.width), low.downsample, (bounds.row, bounds.col))
    else:
        mask = _placed(_mask_image(path), bounds, low, path)
    area = float(mask.sum()) * low.scale.mpp**2 / UM2_PER_MM2
    return TissueMask(mask, low.downsample / view.downsample, area)


def rasterised(
    shapes: Sequence[BaseGeometry], size: tuple[int, int], downsample: float, corner: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.bool_]:
    """Return the mask of areas.

    Parameters
    ----------
    shapes : sequence of shapely geometry
        Polygons and MultiPolygons, (x, y).
    size : tuple of int
        Height and width of the mask.
    downsample : float
        Units of the shapes along a pixel of the mask.
    corner : tuple of float
        (row, column) in units of the shapes that is added to them.

    Returns
    -------
    (height, width) bool
    """
    import shapely
    from PIL import Image, ImageDraw

    image = Image.new("1", (size[1], size[0]))
    for part in shapely.get_parts(shapely.union_all(list(shapes))):
        draw = ImageDraw.Draw(image)
        for fill, ring in ((1, part.exterior), *((0, hole) for hole in part.interiors)):
            draw.polygon([((x + corner[1]) / downsample, (y + corner[0]) / downsample) for x, y in ring.coords], fill)
    return np.array(image)


def _mask_image(path: Path) -> NDArray[np.bool_]:
    """Return which pixels of an image are neither black nor transparent."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            alpha = image.mode in ("LA", "PA", "RGBA")
            pixels = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(
            f"{path}: the tissue mask can't be read ({error}); a PNG of a few megapixels will do"
        ) from error
    if pixels.ndim == 2:
        return pixels > 0
    colours = pixels[..., :-1] if alpha else pixels
    found: NDArray[np.bool_] = np.any(colours > 0, axis=2)
    return found & (pixels[..., -1] > 0) if alpha else found


def _placed(mask: NDArray[np.bool_], bounds: Box, low: SlideView, path: Path) -> NDArray[np.bool_]:
    """Return a mask of the slide's bounds as one of the view."""
    from PIL import Image

    height, width = mask.shape
    wanted = bounds.height / bounds.width
    slack = ASPECT_TOLERANCE * height + 1 + wanted
    if abs(height - width * wanted) > slack:
        raise DataError(
            f"{path}: the tissue mask has {width} x {height} px, which are not the proportions of the slide "
            f"({bounds.width} x {bounds.height} px)"
        )
    row, col = (round(start / low.downsample) for start in (bounds.row, bounds.col))
    shape = tuple(max(1, round(extent / low.downsample)) for extent in bounds.shape)
    image = Image.fromarray(mask.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BOX)
    out = np.zeros((low.height, low.width), np.bool_)
    target = out[row : row + shape[0], col : col + shape[1]]
    target[:] = (np.asarray(image) > 0)[: target.shape[0], : target.shape[1]]
    return out
