"""What a TIFF holds: levels, pages, scale and colours of the image to be read; tiffslide reads makers' metadata."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._samples import UnsupportedPixelsError
from nuclix.plugins.readers._scale import (
    TIFF_RESOLUTION,
    VENDOR,
    OmeImage,
    StatedScale,
    imagej_scale,
    ome_image,
    resolution_scale,
    scale_of,
    stated,
)
from nuclix.plugins.readers._tiles import TilePage, tile_page

XMP_TAG = 700  # where Ventana states its scale and how its tiles are joined
ICC_TAG = 34675
OVERLAP = re.compile(rb'Overlap[XY]="-?0*[1-9]')
SCAN_RESOLUTION = re.compile(rb'ScanRes="([0-9.]+)"')
LIBRARY = r"tiffslide(\.|$)"  # the modules whose warnings are ignored
FILTERS_LOCK = threading.Lock()  # filters are looked up and added by one thread at a time
TRESTLE_SOFTWARE = "MedScan"
ADVICE = "install OpenSlide: pip install openslide-python openslide-bin"
PLAIN_AXES = ("YX", "YXS")
PLANAR_AXES = ("CYX", "SYX")
TIFFSLIDE_PLANAR_AXES = ("CYX",)  # tiffslide refuses others
WHITE_CHANNEL = -1  # OME-XML's Color is a signed RGBA number; this one is its default, opaque white
RED_GREEN_BLUE = (-16776961, 16711935, 65535)  # opaque red, green and blue
COLOUR_NAMES = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """A TIFF as it is read.

    Attributes
    ----------
    info : SlideInfo
        What is known before a pixel.
    pages : tuple of tuple of TilePage
        The pages of each level.
    blank_by_format : bool
        Whether the maker leaves tiles out where nothing was scanned, so that missing tiles are no fault.
    """

    info: SlideInfo
    pages: tuple[tuple[TilePage, ...], ...]
    blank_by_format: bool


class UnsupportedLayoutError(NotImplementedError):
    """The file is intact, but it is not one image that any reader should show as RGB."""


class UnsupportedMakerError(NotImplementedError):
    """The file is intact, but laid out in its maker's way, which another reader may know."""


def read_layout(path: Path) -> TiffLayout:
    """Read all that is known before a pixel; the library's file object is closed again.

    Raises
    ------
    UnsupportedLayoutError, UnsupportedPixelsError
        If the file is intact but not of a kind that is read.
    UnsupportedMakerError
        If another reader may read it.
    SlideError
        If the file is damaged, can't be read, or has pixels that are not square.
    """
    from tifffile import TiffFile

    _quieten("tifffile")
    try:
        with TiffFile(path) as tiff:
            return _layout(path, tiff, _maker_properties(path, tiff))
    except (UnsupportedLayoutError, UnsupportedMakerError, UnsupportedPixelsError, SlideError):
        raise
    except NotImplementedError as error:
        raise UnsupportedMakerError(f"is a TIFF of a kind that can't be read ({error}); export it as RGB") from error
    except PermissionError as error:
        raise SlideError(f"{path}: may not be read by this user; change its permissions") from error
    except Exception as error:  # a damaged file can trip these parsers anywhere
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise SlideError(f"{path}: is damaged or not a whole TIFF ({reason}); copy it again") from error


def _quieten(library: str) -> None:
    """Keep a library's log lines from stderr; a log that the program set up still gets them."""
    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _ignore_warnings() -> None:
    """Ignore what tiffslide says of metadata that it does not parse.

    The filter stays: `warnings.catch_warnings` restores the filters of the whole process, also while another thread is
    opening a slide, for which a warning is an error then if the user asked for that (``python -W error``).
    """
    with FILTERS_LOCK:
        if not any(entry[0] == "ignore" and getattr(entry[3], "pattern", "") == LIBRARY for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=LIBRARY)


def _maker_properties(path: Path, tiff: Any) -> dict[str, Any]:
    """Return properties of a scanner maker's file as tiffslide names them, {} for others: their layout is read here."""
    if tiff.is_svs:
        return _aperio_properties(tiff)
    if not any((tiff.is_scn, tiff.is_bif, tiff.is_ndpi, tiff.is_philips)):
        return {}
    from tiffslide import TiffSlide

    _ignore_warnings()
    with TiffSlide(path) as slide:
        return dict(slide.properties)


def _aperio_properties(tiff: Any) -> dict[str, Any]:
    """Return those properties of an SVS that are used here.

    tiffslide gives the same. Importing it takes a third of a second, for it brings zarr along, and SVS is what most
    slides are.
    """
    from tifffile.tifffile import svs_description_metadata

    axes = tiff.series[0].axes
    if axes not in PLAIN_AXES + TIFFSLIDE_PLANAR_AXES:
        raise NotImplementedError(f"axes {axes}")
    stated_by_aperio = svs_description_metadata(tiff.pages.first.description)
    mpp = stated_by_aperio.get("MPP")
    return {
        "tiffslide.vendor": "aperio",
        "tiffslide.series-index": 0,
        "tiffslide.mpp-x": mpp,
        "tiffslide.mpp-y": mpp,
        "tiffslide.objective-power": stated_by_aperio.get("AppMag"),
        "aperio.MPP": mpp,
    }


def _layout(path: Path, tiff: Any, properties: Mapping[str, Any]) -> TiffLayout:
    xmp = b"".join(bytes(page.tags.valueof(XMP_TAG, b"")) for page in tiff.pages) if tiff.is_bif else b""
    if OVERLAP.search(xmp):
        raise UnsupportedMakerError(f"has Ventana tiles that overlap, which tiffslide does not join; {ADVICE}")
    if str(tiff.pages.first.software).startswith(TRESTLE_SOFTWARE):
        raise UnsupportedMakerError(f"is a Trestle slide, whose tiles may overlap; {ADVICE}")
    ome = ome_image(tiff.ome_metadata) if tiff.is_ome else None
    composition = properties.get("tiffslide.series-composition")  # SCN: several scanned regions on one slide
    if composition:
        levels, pages = _composed(tiff, properties, composition["located_series"])
        chosen = properties["tiffslide.series-index"]
    else:
        chosen = properties.get("tiffslide.series-index", _largest(tiff.series))
        levels, pages = _pyramid(tiff.series[chosen], ome)
    first = tiff.series[chosen].levels[0].pages[0].keyframe
    tags = {name: first.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")}
    scale, source = scale_of(path, _scales(tiff, tags, properties, ome, xmp))
    profile = first.tags.valueof(ICC_TAG)
    info = SlideInfo(
        path=path,
        vendor=str(properties.get("tiffslide.vendor") or _vendor(tiff)).lower(),
        levels=levels,
        scale=scale,
        bounds=_bounds(properties),
        scale_source=source,
        objective_power=_objective(properties, ome),
        compression=_name(first.compression),
        icc_profile=profile if isinstance(profile, bytes) else None,
        associated=_associated(tiff, set(composition["located_series"]) if composition else {chosen}),
    )
    return TiffLayout(info, pages, bool(tiff.is_philips))


def _vendor(tiff: Any) -> str:
    kinds = {"ventana": tiff.is_bif, "philips_tiff": tiff.is_philips, "ome": tiff.is_ome, "imagej": tiff.is_imagej}
    return next((name for name, there in kinds.items() if there), "generic-tiff")


def _largest(series: Sequence[Any]) -> int:
    """Return the series of the largest image, the first of equals: labels and overviews are smaller than the slide."""

    def area(index: int) -> int:
        sides = dict(zip(series[index].axes, series[index].shape, strict=False))
        return int(sides.get("Y", 1)) * int(sides.get("X", 1))

    return max(range(len(series)), key=lambda index: (area(index), -index))


def _pyramid(series: Any, ome: OmeImage | None) -> tuple[tuple[Level, ...], tuple[tuple[TilePage, ...], ...]]:
    if series.axes not in PLAIN_AXES + PLANAR_AXES:
        raise UnsupportedLayoutError(
            f"is a stack of images (axes {series.axes}, {' x '.join(map(str, series.shape))}); export one plane as RGB"
        )
    if series.axes == "CYX":
        _check_channels(series.shape[0], ome)
    white = None
    if ome is not None and ome.significant_bits is not None and 8 < ome.significant_bits <= 16:
        white = (1 << ome.significant_bits) - 1
    pages = [tile_page(_present(level.pages), (0, 0), white) for level in series.levels]
    sizes = [(page.place.height, page.place.width) for page in pages]
    return _ordered(sizes, [(page,) for page in pages])


def _present(pages: Sequence[Any]) -> list[Any]:
    found = [page for page in pages if page is not None]
    if len(found) < len(pages):
        raise UnsupportedLayoutError(f"lacks {len(pages) - len(found)} of its pages: they are in other files")
    return found


def _check_channels(count: int, ome: OmeImage | None) -> None:
    """Raise unless the channels may be taken for red, green and blue."""
    if count != len(RED_GREEN_BLUE):
        raise UnsupportedLayoutError(f"has {count} channels, which nuclix does not read as colours; export it as RGB")
    if ome is None:
        return
    names = tuple(name.lower() for name in ome.names)
    unstated = all(colour in (None, WHITE_CHANNEL) for colour in ome.colours)
    if names in COLOUR_NAMES or ome.colours == RED_GREEN_BLUE or (unstated and not any(ome.names)):
        return
    raise UnsupportedLayoutError(
        f"has three channels ({', '.join(name or '?' for name in ome.names) or 'with colours of their own'}) that are "
        "not red, green and blue; export it as RGB"
    )


def _ordered(
    sizes: list[tuple[int, int]], pages: list[tuple[TilePage, ...]]
) -> tuple[tuple[Level, ...], tuple[tuple[TilePage, ...], ...]]:
    height, width = sizes[0]
    for index, (h, w) in enumerate(sizes):
        if h > height or w > width:
            raise UnsupportedLayoutError(
                f"has a pyramid whose level {index} ({w} x {h} px) is larger than its first ({width} x {height} px); "
                "export it again"
            )
    levels = [Level(h, w, (height / h + width / w) / 2) for h, w in sizes]
    order = sorted(range(len(levels)), key=lambda index: levels[index].downsample)
    kept = [index for place, index in enumerate(order) if not place or sizes[index] != sizes[order[place - 1]]]
    return tuple(levels[index] for index in kept), tuple(pages[index] for index in kept)


def _composed(
    tiff: Any, properties: Mapping[str, Any], located: Mapping[int, Sequence[Sequence[int]]]
) -> tuple[tuple[Level, ...], tuple[tuple[TilePage, ...], ...]]:
    """Return the levels of a slide that is made of several series at given places."""
    sizes: list[tuple[int, int]] = []
    pages: list[tuple[TilePage, ...]] = []
    while (prefix := f"tiffslide.level[{len(sizes)}]") + ".width" in properties:
        index = len(sizes)
        sizes.append((int(properties[f"{prefix}.height"]), int(properties[f"{prefix}.width"])))
        placed = []
        for series, corners in located.items():
            row, col = int(corners[index][0]), int(corners[index][1])
            placed.append(tile_page(_present(tiff.series[series].levels[index].pages), (row, col)))
        pages.append(tuple(placed))
    return _ordered(sizes, pages)


def _scales(
    tiff: Any, tags: Mapping[str, Any], properties: Mapping[str, Any], ome: OmeImage | None, xmp: bytes
) -> list[StatedScale | None]:
    """Return what the file says of its scale, the most trustworthy first."""
    across, down = properties.get("tiffslide.mpp-x"), properties.get("tiffslide.mpp-y")
    from_tags = tiff.is_ndpi or (tiff.is_svs and properties.get("aperio.MPP") is None)
    scan = SCAN_RESOLUTION.search(xmp)
    return [
        None if from_tags or tiff.is_bif else stated(across, down, VENDOR),
        None if scan is None else stated(scan[1], scan[1], VENDOR),
        None if ome is None else ome.scale,
        imagej_scale(tags, tiff.imagej_metadata) if tiff.is_imagej else None,
        stated(across, down, TIFF_RESOLUTION),
        resolution_scale(tags),
    ]


def _objective(properties: Mapping[str, Any], ome: OmeImage | None) -> float | None:
    value = properties.get("tiffslide.objective-power") or (ome.objective if ome is not None else None)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _name(compression: Any) -> str:
    return str(getattr(compression, "name", compression)).lower().replace("_", " ")


def _associated(tiff: Any, shown: set[int]) -> tuple[str, ...]:
    names = ((series.name or f"series {index}") for index, series in enumerate(tiff.series) if index not in shown)
    return tuple(str(name).lower() for name in names)


def _bounds(properties: Mapping[str, Any]) -> Box | None:
    """Return the part of the slide that QuPath shows, which it takes only where all four properties are there."""
    values = [properties.get(f"tiffslide.bounds-{side}") for side in ("y", "x", "height", "width")]
    if any(value is None for value in values):
        return None
    row, col, height, width = (int(value) for value in values if value is not None)
    return Box(row, col, height, width)
