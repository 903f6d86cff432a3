"""Slides in TIFF: SVS, NDPI, SCN, Philips and OME TIFF, generic pyramids, and plain TIFF images.

tiffslide reads the metadata. Pixels are decoded tile by tile here: its own way leads through zarr, which decodes
every tile of every box anew and costs more than the JPEG decoding itself.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.open import COARSEST_UM, FINEST_UM
from nuclix.plugins.readers._tiles import (
    BadTileError,
    RandomAccessFile,
    TileCache,
    TilePage,
    UnsupportedPixelsError,
    tile_page,
)

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and Big, little and big endian
XMP_TAG = 700  # where Ventana says how its tiles are joined
OVERLAP = re.compile(rb'Overlap[XY]="-?0*[1-9]')
MAX_ANISOTROPY = 0.02  # pixels further from square than this would bias every area and diameter
CACHE_BYTES = 64 << 20  # some 300 tiles of 256 x 256: the surroundings of a few blocks


@dataclass(frozen=True)
class _Pyramid:
    """A level's size and the pages that it is made of, for every level."""

    levels: tuple[Level, ...]
    pages: tuple[tuple[TilePage, ...], ...]


class TiffSlideReader:
    """Reads what tiffslide opens."""

    priority: ClassVar[int] = 0

    def __init__(self, info: SlideInfo, pages: tuple[tuple[TilePage, ...], ...], file: RandomAccessFile) -> None:
        self.info = info
        self._pages = pages
        self._file = file
        self._cache = TileCache(CACHE_BYTES)
        self._open = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether the file begins as a TIFF does."""
        with path.open("rb") as file:
            return file.read(4) in TIFF_MAGICS

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a TIFF.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        TiffSlideReader

        Raises
        ------
        SlideError
            If the file is damaged or cut short, holds no 8-bit image, or has pixels that are not square.
        """
        info, pages = _metadata(path)
        size = path.stat().st_size
        for index, level in enumerate(pages):
            end = max((int((page.offsets + page.counts).max()) for page in level if page.offsets.size), default=0)
            if end > size:
                raise SlideError(
                    f"{path}: is cut short: level {index} reaches to byte {end}, the file has {size}; copy it again"
                )
        return cls(info, pages, RandomAccessFile(path))

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read a box of a level.

        Parameters
        ----------
        level : int
            Index into ``info.levels``.
        box : Box
            In the level's pixels; may reach over its edges.

        Returns
        -------
        (height, width, 3) uint8
            RGB, white outside the level.

        Raises
        ------
        SlideError
            If a tile is missing or damaged; names the tile.
        """
        if not self._open:
            raise ValueError(f"{self.info.path}: read after close")
        if not 0 <= level < len(self._pages):
            raise ValueError(f"{self.info.path}: has no level {level}")
        whole = Box(0, 0, self.info.levels[level].height, self.info.levels[level].width)
        covered = len(self._pages[level]) == 1 and box.intersect(whole) == box
        out = np.empty((*box.shape, 3), np.uint8) if covered else np.full((*box.shape, 3), 255, np.uint8)
        for index, page in enumerate(self._pages[level]):
            wanted = box.intersect(whole).intersect(page.place)
            if wanted.area:
                self._paste(out, box, (level, index), wanted)
        return out

    def _paste(self, out: NDArray[np.uint8], box: Box, source: tuple[int, int], wanted: Box) -> None:
        """Copy the tiles of a page under `wanted` into `out`, which shows `box`; `source` is (level, page)."""
        page = self._pages[source[0]][source[1]]
        height, width = page.tile
        inner = wanted.shift(-page.place.row, -page.place.col)
        for row in range(inner.row // height, (inner.row_end - 1) // height + 1):
            for col in range(inner.col // width, (inner.col_end - 1) // width + 1):
                tile = self._tile(source, row, col)
                place = Box(row * height, col * width, tile.shape[0], tile.shape[1])
                shown = inner.intersect(place)
                out[shown.shift(page.place.row, page.place.col).slices(box)] = tile[shown.slices(place)]

    def _tile(self, source: tuple[int, int], row: int, col: int) -> NDArray[np.uint8]:
        page = self._pages[source[0]][source[1]]
        try:
            return self._cache.get((*source, row, col), lambda: page.rgb(self._file, row, col))
        except BadTileError as error:
            raise SlideError(
                f"{self.info.path}: level {source[0]}, tile in row {row}, column {col} {error}; "
                "the file is damaged: copy or export it again"
            ) from error

    def close(self) -> None:
        """Close the file and forget its tiles."""
        self._open = False
        self._file.close()
        self._cache.clear()


def _metadata(path: Path) -> tuple[SlideInfo, tuple[tuple[TilePage, ...], ...]]:
    """Read all that is known before a pixel; the library's file object is closed again."""
    import tiffslide

    _quieten("tifffile")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that tiffslide does not parse
            with tiffslide.TiffSlide(path) as slide:
                properties = slide.properties
                pyramid = _pyramid(slide.ts_tifffile, properties)
                vendor = properties.get("tiffslide.vendor") or slide.detect_format(path) or "generic-tiff"
    except UnsupportedPixelsError as error:
        raise SlideError(f"{path}: {error}") from error
    except NotImplementedError as error:
        raise SlideError(f"{path}: is a TIFF of a kind that can't be read ({error}); export it as RGB") from error
    except Exception as error:  # a damaged file can trip these parsers anywhere
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise SlideError(f"{path}: is damaged or not a whole TIFF ({reason}); copy it again") from error
    scale = _scale(path, properties.get("tiffslide.mpp-x"), properties.get("tiffslide.mpp-y"))
    info = SlideInfo(path, str(vendor).lower(), pyramid.levels, scale, _bounds(properties))
    return info, pyramid.pages


def _quieten(library: str) -> None:
    """Keep a library's log lines from stderr; a log that the program set up still gets them."""
    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _pyramid(tiff: Any, properties: Mapping[str, Any]) -> _Pyramid:
    if tiff.is_bif and any(OVERLAP.search(bytes(page.tags.valueof(XMP_TAG, b""))) for page in tiff.pages):
        raise NotImplementedError("Ventana tiles that overlap: nuclei would be seen twice")
    composition = properties.get("tiffslide.series-composition")  # SCN: several scanned regions on one slide
    placed = composition["located_series"] if composition else {properties["tiffslide.series-index"]: None}
    blank = bool(tiff.is_philips)  # leaves unscanned tiles out
    levels, pages = [], []
    width, height = properties["tiffslide.level[0].width"], properties["tiffslide.level[0].height"]
    index = 0
    while f"tiffslide.level[{index}].width" in properties:
        size = (properties[f"tiffslide.level[{index}].height"], properties[f"tiffslide.level[{index}].width"])
        levels.append(Level(int(size[0]), int(size[1]), (height / size[0] + width / size[1]) / 2))
        pages.append(
            tuple(
                tile_page(_only_page(tiff.series[series].levels[index]), _corner(corners, index), blank)
                for series, corners in placed.items()
            )
        )
        index += 1
    order = sorted(range(index), key=lambda level: levels[level].downsample)
    return _Pyramid(tuple(levels[level] for level in order), tuple(pages[level] for level in order))


def _corner(corners: Sequence[Sequence[int]] | None, level: int) -> tuple[int, int]:
    return (0, 0) if corners is None else (int(corners[level][0]), int(corners[level][1]))


def _only_page(series: Any) -> Any:
    if len(series.pages) != 1:
        raise NotImplementedError(f"a stack of {len(series.pages)} pages")
    return series.pages[0]


def _scale(path: Path, mpp_x: Any, mpp_y: Any) -> Scale | None:
    """Return the geometric mean of the two axes' um/px; None where the file says nothing believable."""
    try:
        across, down = float(mpp_x), float(mpp_y)
    except (TypeError, ValueError):
        return None
    if not all(FINEST_UM <= um <= COARSEST_UM for um in (across, down)):
        return None  # such as the 72 dpi that image editors write
    if abs(across / down - 1) > MAX_ANISOTROPY:
        raise SlideError(
            f"{path}: has pixels that are not square ({across:g} x {down:g} um); resample it to square pixels first"
        )
    return Scale(math.sqrt(across * down))


def _bounds(properties: Mapping[str, Any]) -> Box | None:
    """Return the part of the slide that QuPath shows, which it takes only where all four properties are there."""
    values = [properties.get(f"tiffslide.bounds-{side}") for side in ("y", "x", "height", "width")]
    if any(value is None for value in values):
        return None
    row, col, height, width = (int(value) for value in values if value is not None)
    return Box(row, col, height, width)
