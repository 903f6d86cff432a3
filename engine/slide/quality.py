"""How good a slide is: focus, stain, pen marks, dust and borders, from samples and the overview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.slide.normalise import REFERENCE, stain_profile
from nuclix.engine.slide.samples import TissueSamples
from nuclix.engine.slide.stains import angle_between
from nuclix.engine.slide.tissue import BLACK, Overview, TissueMask

# Variance of the Laplacian over that of the brightness, at 0.5 um/px. Of 97 tiles in focus (CMU-1 and 16 images of
# Kumar et al.) the least is 0.099; blurred by a Gaussian of 1 um, the greatest is 0.029.
MIN_SHARPNESS = 0.04
MIN_CONTRAST = 25.0  # variance of the brightness, of 255^2: tiles with less show nothing that could be sharp
MAX_OUT_OF_FOCUS = 0.1  # share of the tissue above which a slide is warned of
MIN_TILES = 5
# The training images of Kumar et al. lie within 10.4 degrees of their common vectors, hematoxylin and eosin.
MAX_STAIN_ANGLE = 20.0
MAX_PEN = 0.01  # share of the tissue
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_INK_CHROMA, _INK_GREEN = 50, 20  # of 255: ink is coloured, and greener than red, which no H&E is
_RED_CHROMA, _RED_REST = 110, 60  # red ink is purer than eosin and blood at this resolution
_BLACK_INK, _GREY_CHROMA = 70, 20
_GREY = (70, 185)  # brightness of dust and of a coverslip's edge, which have no colour
_MIN_MM2 = 0.005  # smaller specks are single dark nuclei or noise
_EDGE_MM, _EDGE_FILL = 2.0, 0.2  # a coverslip's edge is a line: long, and thin in its box
UM2_PER_MM2, UM_PER_MM = 1e6, 1e3


@dataclass(frozen=True, slots=True)
class SlideQuality:
    """What is measured of a slide before it is segmented.

    Attributes
    ----------
    out_of_focus : float or None
        Share of the sampled tissue tiles with enough contrast that are out of focus; None where there are too few.
    sharpness : float or None
        Median over those tiles of the variance of the Laplacian over that of the brightness.
    stain_vectors : tuple of tuple of float or None
        Hematoxylin and eosin, estimated; None where that fails.
    stain_angles : tuple of float or None
        Degrees between those and the vectors of the reference, which the shipped models learnt from.
    pen_mm2, dust_mm2, coverslip_mm2, border_mm2 : float
        Areas of ink, of grey specks, of long grey lines, and of black at the slide's edges.
    pen_share : float
        Part of the tissue mask that is ink.
    """

    out_of_focus: float | None = None
    sharpness: float | None = None
    stain_vectors: tuple[tuple[float, ...], ...] | None = None
    stain_angles: tuple[float, ...] | None = None
    pen_mm2: float = 0.0
    dust_mm2: float = 0.0
    coverslip_mm2: float = 0.0
    border_mm2: float = 0.0
    pen_share: float = 0.0


def tile_sharpness(tile: NDArray[np.uint8]) -> float | None:
    """Return the variance of the Laplacian of a tile's brightness over the variance of the brightness.

    Parameters
    ----------
    tile : (height, width, 3) uint8
        At 0.5 um/px.

    Returns
    -------
    float or None
        None where the tile has too little contrast to say. White noise has 20, a blurred image nearly 0.
    """
    grey = tile.astype(np.float32) @ _BRIGHTNESS
    if min(grey.shape) < 3 or grey.var() < MIN_CONTRAST:
        return None
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var() / grey.var())


def slide_quality(samples: TissueSamples, overview: Overview | None, tissue: TissueMask | None) -> SlideQuality:
    """Measure the quality of a slide.

    Parameters
    ----------
    samples : TissueSamples
        Tiles of its tissue.
    overview : Overview or None
        The slide at low resolution; without it, ink and dust are not looked for.
    tissue : TissueMask or None
        At the overview's resolution.
    """
    found = [value for value in map(tile_sharpness, samples.tiles) if value is not None]
    enough = len(found) >= MIN_TILES
    vectors = angles = None
    try:
        own = stain_profile(samples.pixels).vectors
        vectors = tuple(tuple(round(float(value), 4) for value in vector) for vector in own)
        angles = tuple(round(angle_between(*pair), 1) for pair in zip(own, REFERENCE.vectors, strict=True))
    except DataError:
        pass
    areas = _artefacts(overview, tissue) if overview is not None else {}
    return SlideQuality(
        float(np.mean(np.array(found) < MIN_SHARPNESS)) if enough else None,
        float(np.median(found)) if enough else None,
        vectors,
        angles,
        **areas,
    )


def _artefacts(overview: Overview, tissue: TissueMask | None) -> dict[str, float]:
    """Return the areas of ink, dust, coverslip edges and borders, and the share of the tissue that is ink."""
    pixels, unit = overview.pixels, overview.scale.mpp**2 / UM2_PER_MM2
    value, chroma = pixels.max(axis=2), np.ptp(pixels, axis=2)
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    lit = value >= BLACK
    coloured = lit & (chroma > _INK_CHROMA) & (green > red + _INK_GREEN)
    pure_red = lit & (chroma > _RED_CHROMA) & (np.maximum(green, blue) < _RED_REST)
    black = lit & (value < _BLACK_INK) & (chroma < _GREY_CHROMA)
    ink = _large(coloured | pure_red | black, unit)
    grey = lit & (chroma < _GREY_CHROMA) & (value >= _GREY[0]) & (value < _GREY[1])
    dust, edge = _specks_and_lines(grey & ~ink, overview)
    found = {
        "pen_mm2": float(ink.sum()) * unit,
        "dust_mm2": dust,
        "coverslip_mm2": edge,
        "border_mm2": float(_at_edges(_large(~lit, unit)).sum()) * unit,
    }
    if tissue is not None and tissue.mask.any():
        inside = tissue.mask[: ink.shape[0], : ink.shape[1]]
        found["pen_share"] = float(ink[inside].mean())
    return found


def _large(mask: NDArray[np.bool_], unit: float) -> NDArray[np.bool_]:
    """Return the 8-connected pieces of `_MIN_MM2` or more; `unit` is the area of a pixel."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * unit
    sizes[0] = 0.0
    large: NDArray[np.bool_] = (sizes >= _MIN_MM2)[labels]
    return large


def _at_edges(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pieces of a mask that reach its edges."""
    from scipy import ndimage

    frame = np.ones_like(mask)
    frame[1:-1, 1:-1] = False
    found: NDArray[np.bool_] = ndimage.binary_propagation(mask & frame, np.ones((3, 3)), mask)
    return found


def _specks_and_lines(grey: NDArray[np.bool_], overview: Overview) -> tuple[float, float]:
    """Return the area of grey specks, and that of long thin ones, in mm2."""
    from scipy import ndimage

    unit, specks, lines = overview.scale.mpp**2 / UM2_PER_MM2, 0.0, 0.0
    labels, _ = ndimage.label(_large(grey, unit), np.ones((3, 3)))
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        part = labels[place] == number
        length = max(part.shape) * overview.scale.mpp / UM_PER_MM
        if length >= _EDGE_MM and part.mean() <= max(_EDGE_FILL, 3 / min(part.shape)):
            lines += float(part.sum()) * unit
        else:
            specks += float(part.sum()) * unit
    return specks, lines


def quality_warnings(quality: SlideQuality) -> Sequence[str]:
    """Return what the user should know of a slide's quality."""
    said = []
    if quality.out_of_focus is not None and quality.out_of_focus > MAX_OUT_OF_FOCUS:
        said.append(f"out of focus in {quality.out_of_focus:.0%} of the tissue: nuclei there are not reliable")
    if quality.stain_angles is not None and max(quality.stain_angles) > MAX_STAIN_ANGLE:
        hematoxylin, eosin = quality.stain_angles
        said.append(
            f"the stain differs from the reference by {hematoxylin:.0f} degrees (hematoxylin) and {eosin:.0f} degrees "
            "(eosin): not H&E, or another scanner's colours; look at the result, try --stain-normalisation"
        )
    if quality.pen_share > MAX_PEN:
        said.append(f"pen marks cover {quality.pen_share:.0%} of what is taken for tissue")
    return said
