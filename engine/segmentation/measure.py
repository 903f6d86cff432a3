"""Measurements of nuclei, under the names that QuPath gives them, and the objects of a labelled block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import UsageError
from nuclix.engine.geometry import Box
from nuclix.engine.run_config import MEASUREMENTS, RunConfig
from nuclix.engine.segmentation.objects import PROBABILITY, Objects
from nuclix.ext.label_sums import label_sums
from nuclix.ext.outlines import DEFAULT_TOLERANCE, MAX_SMOOTH_EXTENT, Outlines, OutlineStyle, outlines
from nuclix.ext.shapes import Rings, shape_measurements
from nuclix.ext.stains import StainStatistics, stain_inverse, stain_statistics

# Shapes; stains as StarDist and InstanSeg name them; stains as QuPath's cell detection names them.
FAMILIES = MEASUREMENTS
STAINS = ("Hematoxylin", "Eosin")
STATISTICS = {"Mean": "mean", "Median": "median", "Min": "min", "Max": "max", "Std.Dev.": "std"}
OD_STATISTICS = ("mean", "sum", "std dev", "max", "min", "range")  # of QuPath's cell detection
DEFAULT, ESTIMATE = "default", "estimate"  # stain vectors of QuPath, of each slide
_VECTOR_NUMBERS = 6  # two stain vectors of red, green, blue
_RED, _GREEN = 65536.0, 256.0  # places of the channels in a packed pixel, below 2^24: float32 holds it exactly


@dataclass(frozen=True, slots=True)
class MeasurementSettings:
    """How nuclei are outlined and what is measured.

    Attributes
    ----------
    outline : {"smooth", "pixel"}
        See `nuclix.ext.outlines.outlines`.
    tolerance : float
        Of the simplification of smooth outlines, in pixels at the model's scale.
    keep_holes : bool
        Keep holes instead of filling them.
    families : tuple of str
        Of `FAMILIES`.
    stains : tuple of float or None
        Hematoxylin and eosin vectors (r, g, b, r, g, b); None for QuPath's default.
    estimate_stains : bool
        Whether the vectors are estimated for each slide; `stains` is then None until they are.
    cell_expansion : float or None
        Micrometres by which nuclei grow to cells at most; None for nuclei alone.
    """

    outline: OutlineStyle = "smooth"
    tolerance: float = DEFAULT_TOLERANCE
    keep_holes: bool = False
    families: tuple[str, ...] = ("shape",)
    stains: tuple[float, ...] | None = None
    cell_expansion: float | None = None
    estimate_stains: bool = False

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown:
            raise ValueError(f"measurements are {', '.join(FAMILIES)}, not {unknown[0]!r}")
        if self.outline not in get_args(OutlineStyle):
            raise ValueError(f"outlines are {' or '.join(get_args(OutlineStyle))}, not {self.outline!r}")

    @property
    def needs_pixels(self) -> bool:
        """Whether the slide's pixels are measured."""
        return "stain" in self.families or "stain-od" in self.families

    def inverse(self) -> NDArray[np.float64]:
        """Return the matrix from optical densities to stains."""
        if self.stains is None:
            return stain_inverse()
        return stain_inverse(self.stains[:3], self.stains[3:])


SHAPE_ONLY = MeasurementSettings()


def measurement_settings(config: RunConfig) -> MeasurementSettings:
    """Return the settings that the options of a run ask for.

    Raises
    ------
    UsageError
        If the stain vectors are not six numbers, or not those of two stains.
    """
    given, stains = config.stains, None
    estimate = given == (ESTIMATE,)
    try:
        if given and given not in ((ESTIMATE,), (DEFAULT,)):
            stains = tuple(float(number) for number in given)
            if len(stains) != _VECTOR_NUMBERS:
                raise ValueError(f"{len(stains)} numbers where there should be {_VECTOR_NUMBERS}")
        style = cast(OutlineStyle, config.outline)
        settings = MeasurementSettings(
            style, config.simplify, config.keep_holes, config.measurements, stains, config.cell_expansion, estimate
        )
        settings.inverse()
    except ValueError as error:
        raise UsageError(
            f"--stains takes {DEFAULT}, {ESTIMATE}, or R,G,B,R,G,B of hematoxylin and eosin: {error}"
        ) from error
    return settings


def measurement_names(mpp: float | None, settings: MeasurementSettings) -> tuple[str, ...]:
    """Return the names of all measurements of nuclei, in the order in which they are written.

    Parameters
    ----------
    mpp : float or None
        None where the scale is not known: lengths are then in px.
    settings : MeasurementSettings
        Which families.

    Returns
    -------
    tuple of str
        QuPath's names; the detection probability is always among them.
    """
    names = (*(_shape_names(mpp) if "shape" in settings.families else ()), PROBABILITY)
    if "stain" in settings.families:
        names += tuple(f"{stain}: {name}" for stain in STAINS for name in STATISTICS)
    if "stain-od" in settings.families:
        names += tuple(f"Nucleus: {stain} OD {kind}" for stain in STAINS for kind in OD_STATISTICS)
    return names


def _shape_names(mpp: float | None) -> tuple[str, ...]:
    unit = "px" if mpp is None else "µm"
    lengths = (f"Max diameter {unit}", f"Min diameter {unit}")
    return (f"Area {unit}^2", f"Length {unit}", "Circularity", "Solidity", *lengths)


def measure(
    found: Outlines | Objects, sums: NDArray[np.float64], mpp: float | None, families: tuple[str, ...] = ("shape",)
) -> dict[str, NDArray[np.float64]]:
    """Measure shapes and probability of nuclei as QuPath does.

    Area has holes taken off and length has them added; circularity is 4 pi A / P^2 of the shell with its holes
    filled, not clipped; solidity is area over the convex hull's area; the maximum diameter is that of the minimum
    bounding circle and the minimum diameter is the minimum width.

    Parameters
    ----------
    found : Outlines or Objects
        N outlines in pixels at the model's scale.
    sums : (N,) float64
        Sum of the score map (0..1) over each object's pixels.
    mpp : float or None
        Micrometres along one such pixel; None leaves lengths in pixels.
    families : tuple of str
        Without "shape", only the probability is given.

    Returns
    -------
    dict of str to (N,) float64
        In QuPath's order. A score that is not a number counts as 0; the circularity of an object of several parts,
        which QuPath does not give, is NaN. Every other value is finite.
    """
    probability = np.clip(np.nan_to_num(sums / found.pixels, nan=0.0), 0.0, 1.0)
    if "shape" not in families:
        return {PROBABILITY: probability}
    return {**shape_values(found, mpp), PROBABILITY: probability}


def shape_values(found: Rings, mpp: float | None) -> dict[str, NDArray[np.float64]]:
    """Return the shape measurements that `measure` gives of N outlines in pixels, by name."""
    shapes = shape_measurements(found)
    length = 1.0 if mpp is None else mpp
    circularity = 4 * math.pi * shapes.exterior_area / shapes.exterior_perimeter**2
    if found.shells.sum() > len(found.rings) - 1:
        parts = np.add.reduceat(found.shells, found.rings[:-1], dtype=np.int64)
        circularity = np.where(parts > 1, np.nan, circularity)
    values = (
        shapes.area * length**2,
        shapes.perimeter * length,
        circularity,
        shapes.area / shapes.hull_area,
        shapes.min_bounding_circle_diameter * length,
        shapes.min_width * length,
    )
    return dict(zip(_shape_names(mpp), values, strict=True))


def stain_values(
    statistics: StainStatistics, pixels: NDArray[np.int64], families: tuple[str, ...]
) -> list[NDArray[np.float64]]:
    """Return the columns of the stain families, in the order of `measurement_names`."""
    values: list[NDArray[np.float64]] = []
    stains = range(len(STAINS))
    if "stain" in families:
        values += [getattr(statistics, name)[:, k] for k in stains for name in STATISTICS.values()]
    if "stain-od" in families:
        low, high = statistics.min, statistics.max
        columns = (statistics.mean, statistics.mean * pixels[:, None], statistics.std, high, low, high - low)
        values += [column[:, k] for k in stains for column in columns]
    return values


def packed_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (H, W, 3) uint8 pixels as one (H, W) float32 plane, which travels with the maps of a network.

    See Also
    --------
    unpacked_pixels : The inverse.
    """
    plane = rgb[..., 0] * np.float32(_RED)
    plane += rgb[..., 1] * np.float32(_GREEN)
    plane += rgb[..., 2]
    return plane


def unpacked_pixels(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 pixels of a plane of `packed_pixels`."""
    packed = np.ascontiguousarray(plane.astype("<u4"))
    return packed.view(np.uint8).reshape(*plane.shape, 4)[..., 2::-1]


def objects_of(
    labels: NDArray[Any],
    scores: NDArray[np.float32] | None,
    origin: Box,
    mpp: float | None,
    settings: MeasurementSettings = SHAPE_ONLY,
    rgb: NDArray[np.uint8] | None = None,
) -> Objects:
    """Outline and measure the nuclei of a labelled block.

    Parameters
    ----------
    labels : (H, W) integer array
        0 is background; a label need not be connected.
    scores : (H, W) float32 or None
        The post-processor's score of each pixel, 0..1; None leaves the probability 0, for who knows it by nucleus.
    origin : Box
        Where the block lies on the slide, in pixels at the model's scale; only its first row and column are used.
    mpp : float or None
        Micrometres along one such pixel, or None where the slide does not say.
    settings : MeasurementSettings
        How to outline, and what to measure.
    rgb : (H, W, 3) uint8, optional
        The block's pixels; needed where stains are measured, over the pixels of the label.

    Returns
    -------
    Objects
        In canonical order, in slide coordinates at the model's scale; every class is 0.

    Raises
    ------
    ValueError
        If the shapes differ, a label is negative, pixels are missing, or the block lies beyond 2^19 px, where float32
        does not hold the corners exactly.
    """
    found = outlines(labels, settings.outline, settings.tolerance, keep_holes=settings.keep_holes)
    corner = np.array([origin.row, origin.col], np.int64)
    if corner.min() <= -MAX_SMOOTH_EXTENT or (corner + labels.shape).max() >= MAX_SMOOTH_EXTENT:
        raise ValueError(f"a block at {origin.row}, {origin.col} lies beyond {MAX_SMOOTH_EXTENT} px")
    sums = np.zeros(len(found)) if scores is None else label_sums(labels, scores)
    measurements = measure(found, sums, mpp, settings.families)
    if settings.needs_pixels:
        if rgb is None:
            raise ValueError("stains are measured on the block's pixels, and there are none")
        statistics = stain_statistics(labels, rgb, settings.inverse())
        names = measurement_names(mpp, settings)[len(measurements) :]
        values = stain_values(statistics, found.pixels, settings.families)
        measurements.update(zip(names, values, strict=True))
    return Objects(
        first=found.first + corner,
        pixels=found.pixels,
        rings=found.rings,
        shells=found.shells,
        offsets=found.offsets,
        corners=(found.corners + corner).astype(np.float32),
        classes=np.zeros(len(found), np.int32),
        measurements=measurements,
    )
