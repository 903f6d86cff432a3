"""Slides in TIFF: SVS, NDPI, SCN, Philips and OME TIFF, generic pyramids, and plain TIFF images.

tifffile reads the metadata, and tiffslide those of makers other than Aperio. Pixels are decoded tile by tile here:
tiffslide's own way leads through zarr, which decodes every tile of every box again and costs more than the JPEG
decoding itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideReader
from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.damage import TileDamage
from nuclix.engine.slide.view import level_downsample
from nuclix.ext.resample import box_mean
from nuclix.plugins.readers._samples import UnsupportedPixelsError
from nuclix.plugins.readers._storage import RandomAccessFile, TileCache
from nuclix.plugins.readers._tiff_layout import TiffLayout, UnsupportedLayoutError, UnsupportedMakerError, read_layout
from nuclix.plugins.readers._tiles import BadTileError
from nuclix.plugins.readers._uniform import UNKNOWN, WHITE, UniformTiles, filled, split_colour

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and Big, little and big endian
CACHE_BYTES = 64 << 20  # some 300 tiles of 256 x 256: the surroundings of a few blocks


class TiffSlideReader(SlideReader):
    """Reads TIFF.

    Parameters
    ----------
    layout : TiffLayout
        Levels and pages.
    file : RandomAccessFile
        The open file.
    """

    priority: ClassVar[int] = 0

    def __init__(self, layout: TiffLayout, file: RandomAccessFile) -> None:
        self.info = layout.info
        self._pages = layout.pages
        self._empty = [[page.empty for page in level] for level in layout.pages]
        self._file = file
        self._cache = TileCache(CACHE_BYTES)
        self._open = True
        self._lock = threading.Lock()
        self._tolerated = 0
        self._bad: set[tuple[int, int, int]] = set()
        self._missing = (
            0 if layout.blank_by_format else sum(int(empty.sum()) for level in self._empty for empty in level)
        )
        simple = all(len(level) == 1 and level[0].place.row == level[0].place.col == 0 for level in self._pages)
        first = tuple(level[0] for level in self._pages)
        self._uniform = UniformTiles(first, lambda level, index: self._decoded((level, 0), index)) if simple else None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file begins as a TIFF does; the TIFF of a VSI is only its preview."""
        if path.suffix.lower() == ".vsi" or not path.is_file():
            return False
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
        UnsupportedSlideError
            If the file is intact, but laid out in its maker's way, which another reader may know.
        SlideError
            If the file is damaged or cut short, holds no image that is read as 8-bit RGB, or has pixels that are not
            square.
        """
        try:
            layout = read_layout(path)
        except UnsupportedMakerError as error:
            raise UnsupportedSlideError(f"{path}: {error}") from error
        except (UnsupportedPixelsError, UnsupportedLayoutError) as error:
            raise SlideError(f"{path}: {error}") from error
        size = path.stat().st_size
        for index, level in enumerate(layout.pages):
            end = max((page.end for page in level), default=0)
            if end > size:
                raise SlideError(
                    f"{path}: is cut short: level {index} reaches to byte {end}, the file has {size}; copy it again"
                )
        if all(page.empty.all() for page in layout.pages[0]):
            raise SlideError(f"{path}: has no pixels: every tile of level 0 is empty; copy or export it again")
        return cls(layout, RandomAccessFile(path))

    @property
    def damage(self) -> TileDamage:
        """Tiles that are shown as background because the file does not hold their pixels."""
        with self._lock:
            return TileDamage(self._missing, len(self._bad))

    def tolerate_damage(self, max_tiles: int) -> None:
        """Show up to `max_tiles` tiles that do not decode as background; one more is a `SlideError`."""
        self._tolerated = max_tiles

    def tile_index(self) -> str:
        """Return a digest of the offset and length of every tile of every level."""
        digest = hashlib.sha256()
        for plane in (plane for level in self._pages for page in level for plane in page.planes):
            digest.update(plane.offsets.astype("<i8").tobytes() + plane.counts.astype("<i8").tobytes())
        return digest.hexdigest()

    def uniform(self, level: int, box: Box) -> tuple[int, int, int] | None:
        """Return the colour of a box inside the level where it is known to be of one without decoding it."""
        colour = UNKNOWN if self._uniform is None else self._uniform.colour(level, box)
        return None if colour == UNKNOWN else split_colour(colour)

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
            RGB, white outside the level and its pages.

        Raises
        ------
        SlideError
            If a tile is damaged; names the tile.
        """
        if not self._open:
            raise ValueError(f"{self.info.path}: read after close")
        if not 0 <= level < len(self._pages):
            raise ValueError(f"{self.info.path}: has no level {level}")
        whole = Box(0, 0, self.info.levels[level].height, self.info.levels[level].width)
        shown = [box.intersect(whole).intersect(page.place) for page in self._pages[level]]
        out = np.empty((*box.shape, 3), np.uint8) if box in shown else np.full((*box.shape, 3), 255, np.uint8)
        for index, wanted in enumerate(shown):
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
                tile = self._tile(source, row * page.grid[1] + col)
                place = Box(row * height, col * width, tile.shape[0], tile.shape[1])
                shown = inner.intersect(place)
                out[shown.shift(page.place.row, page.place.col).slices(box)] = tile[shown.slices(place)]

    def _tile(self, source: tuple[int, int], index: int) -> NDArray[np.uint8]:
        """Return a tile; one that is missing, or damaged within what is tolerated, as background."""
        page = self._pages[source[0]][source[1]]
        if self._empty[source[0]][source[1]][index]:
            return self._cache.get(("empty", *source, index), lambda: self._missing_tile(source, index))
        try:
            return self._decoded(source, index)
        except BadTileError as error:
            with self._lock:
                if (*source, index) in self._bad or len(self._bad) < self._tolerated:
                    self._bad.add((*source, index))
                    return filled(page.tile, WHITE)
            row, col = divmod(index, page.grid[1])
            advice = f"more than {self._tolerated} tiles are damaged" if self._tolerated else "the file is damaged"
            raise SlideError(
                f"{self.info.path}: level {source[0]}, tile in row {row}, column {col} {error}; {advice}: copy or "
                "export it again"
            ) from error
        except OSError as error:
            raise SlideError(
                f"{self.info.path}: can't be read ({error.strerror}); check the disk or the connection"
            ) from error

    def _decoded(self, source: tuple[int, int], index: int) -> NDArray[np.uint8]:
        page = self._pages[source[0]][source[1]]
        key: tuple[Hashable, ...] = (*source, *page.source(index))
        return self._cache.get(key, lambda: page.rgb(self._file, index))

    def _missing_tile(self, source: tuple[int, int], index: int) -> NDArray[np.uint8]:
        """Return white, or on a coarse level the mean of the finer one: some Aperio files lack tiles there only."""
        level = source[0]
        page = self._pages[level][source[1]]
        if level == 0 or self._uniform is None:
            return filled(page.tile, WHITE)
        row, col = divmod(index, page.grid[1])
        known = int(self._uniform.grid(level)[row, col])
        finer, coarse = self.info.levels[level - 1], self.info.levels[level]
        ratio = level_downsample(finer, Level(coarse.height, coarse.width, coarse.downsample / finer.downsample))
        if known != UNKNOWN or not ratio.is_integer():
            return filled(page.tile, WHITE if known == UNKNOWN else known)
        step = int(ratio)
        box = Box(*(length * step for length in (row * page.tile[0], col * page.tile[1], *page.tile)))
        return box_mean(self.read(level - 1, box), step)

    def close(self) -> None:
        """Close the file and drop its tiles."""
        self._open = False
        self._file.close()
        self._cache.clear()
