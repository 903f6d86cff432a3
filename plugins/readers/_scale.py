"""A slide's scale from what its metadata state: OME-XML, ImageJ, TIFF resolution, vendors' tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Scale
from nuclix.engine.slide.open import COARSEST_UM, FINEST_UM

MAX_ANISOTROPY = 0.02  # pixels further from square than this would bias every area and diameter
VENDOR, OME_XML, IMAGEJ, TIFF_RESOLUTION = "vendor metadata", "OME-XML", "ImageJ", "TIFF resolution"
# OME-XML, UnitsLength; without a unit it is the micrometre (schema 2016-06)
OME_UNITS_UM = {
    **{"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "in": 25400.0},
    **dict.fromkeys(("µm", "μm", "um"), 1.0),  # the micro sign, the Greek letter, and what some writers make of them
}
IMAGEJ_UNITS_UM = {
    **dict.fromkeys(("micron", "microns", "um", "µm", "μm", "\\u00b5m", "\\u00B5m", "micrometer"), 1.0),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25400.0},
}
RESOLUTION_UNITS_UM = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}  # ResolutionUnit: inch, cm; tifffile's mm, um


@dataclass(frozen=True, slots=True)
class StatedScale:
    """What a file says of its pixels: micrometres across and down, and where it says so."""

    across: float
    down: float
    source: str

    @property
    def believable(self) -> bool:
        """Whether a microscope may have it; an editor's 72 dpi is 353 um/px."""
        return all(FINEST_UM <= um <= COARSEST_UM for um in (self.across, self.down))


def scale_of(path: Path, candidates: list[StatedScale | None]) -> tuple[Scale | None, str | None]:
    """Return the first believable scale, as the geometric mean of both axes, with its source.

    Raises
    ------
    SlideError
        If its pixels are not square.
    """
    for stated in candidates:
        if stated is None or not stated.believable:
            continue
        if abs(stated.across / stated.down - 1) > MAX_ANISOTROPY:
            raise SlideError(
                f"{path}: has pixels that are not square ({stated.across:g} x {stated.down:g} um, from "
                f"{stated.source}); resample it to square pixels first"
            )
        return Scale(math.sqrt(stated.across * stated.down)), stated.source
    return None, None


def stated(across: Any, down: Any, source: str) -> StatedScale | None:
    """Return a scale from two values of any kind, None unless both are positive numbers."""
    try:
        values = float(across), float(down)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and value > 0 for value in values):
        return None
    return StatedScale(*values, source)


@dataclass(frozen=True, slots=True)
class OmeImage:
    """What OME-XML says of an image.

    Attributes
    ----------
    scale : StatedScale or None
        From PhysicalSizeX and PhysicalSizeY.
    significant_bits : int or None
        Bits of a sample that are used.
    objective : float or None
        Nominal magnification.
    colours : tuple of int or None
        Each channel's colour as a signed RGBA number, None where it is not stated.
    names : tuple of str
        The channels' names, "" where there is none.
    """

    scale: StatedScale | None
    significant_bits: int | None
    objective: float | None
    colours: tuple[int | None, ...]
    names: tuple[str, ...]


def ome_image(xml: str | None) -> OmeImage | None:
    """Parse OME-XML and return what it says of the first image; None where there is none that can be parsed."""
    if not xml:
        return None
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    pixels = root.find(".//{*}Image/{*}Pixels")
    if pixels is None:
        return None
    across, down = (_ome_length(pixels.attrib, f"PhysicalSize{axis}") for axis in "XY")
    channels = pixels.findall("{*}Channel")
    objective = root.find(".//{*}Instrument/{*}Objective")
    magnification = None if objective is None else objective.get("NominalMagnification")
    return OmeImage(
        scale=stated(across, down, OME_XML),
        significant_bits=_integer(pixels.get("SignificantBits")),
        objective=_float(magnification),
        colours=tuple(_integer(channel.get("Color")) for channel in channels),
        names=tuple(channel.get("Name") or "" for channel in channels),
    )


def _ome_length(attributes: Mapping[str, str], name: str) -> float | None:
    unit = OME_UNITS_UM.get(attributes.get(f"{name}Unit", "um"))  # None: pixels, reference frames
    length = _float(attributes.get(name))
    return None if unit is None or length is None else length * unit


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _integer(text: str | None) -> int | None:
    number = _float(text)
    return None if number is None or not number.is_integer() else int(number)


def imagej_scale(tags: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> StatedScale | None:
    """Return the scale that ImageJ writes: pixels per `unit` of its description, in the resolution tags."""
    unit = IMAGEJ_UNITS_UM.get(str((metadata or {}).get("unit", "")))
    return None if unit is None else _per_pixel(tags, unit, IMAGEJ)


def resolution_scale(tags: Mapping[str, Any]) -> StatedScale | None:
    """Return the scale of the tags XResolution, YResolution and ResolutionUnit."""
    unit = RESOLUTION_UNITS_UM.get(int(tags.get("ResolutionUnit") or 0))
    return None if unit is None else _per_pixel(tags, unit, TIFF_RESOLUTION)


def _per_pixel(tags: Mapping[str, Any], unit_um: float, source: str) -> StatedScale | None:
    try:
        across, down = (tags[name][1] * unit_um / tags[name][0] for name in ("XResolution", "YResolution"))
    except (KeyError, TypeError, IndexError, ZeroDivisionError):
        return None
    return stated(across, down, source)
