"""Decoding the tiles (or strips) of one TIFF page to RGB, and a cache of those decoded last."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box

# TIFF tag values (TIFF 6.0; Aperio's JPEG 2000 codes as libtiff lists them)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
JPEG_COMPRESSIONS = (6, 7)
APERIO_JPEG2000_YCBCR = 33003
PLANAR_SEPARATE = 2
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


class UnsupportedPixelsError(ValueError):
    """The page's pixels are of a kind that has no one reading as 8-bit RGB."""


class BadTileError(ValueError):
    """A tile is missing from the file or does not decode."""


@dataclass(frozen=True)
class TilePage:
    """A page cut into tiles; a page in strips has tiles as wide as itself.

    Attributes
    ----------
    place : Box
        Where the page lies in its level.
    tile : tuple of int
        Height and width of a tile.
    offsets, counts : int64 arrays
        Where each tile's bytes begin in the file, and how many they are; row by row.
    blank : bool
        Whether a tile of no bytes is a blank one by the format's rules, not a lost one.
    decode : callable
        (bytes, index) to the tile's samples (height, width, samples).
    to_rgb : callable
        Samples to RGB uint8.
    """

    place: Box
    tile: tuple[int, int]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    blank: bool
    decode: Callable[[bytes, int], NDArray[Any]]
    to_rgb: Callable[[NDArray[Any]], NDArray[np.uint8]]

    @property
    def across(self) -> int:
        """Number of tiles along a row."""
        return -(-self.place.width // self.tile[1])

    @property
    def down(self) -> int:
        """Number of tiles along a column."""
        return -(-self.place.height // self.tile[0])

    def rgb(self, file: RandomAccessFile, row: int, col: int) -> NDArray[np.uint8]:
        """Read and decode the tile in `row`, `col` of the grid.

        Raises
        ------
        BadTileError
            If its bytes are missing or do not decode.
        """
        index = row * self.across + col
        if not (self.counts[index] and self.offsets[index]):
            if self.blank:
                return np.full((*self.tile, 3), 255, np.uint8)
            raise BadTileError("is missing from the file")
        try:
            tile = self.to_rgb(self.decode(file.read(int(self.offsets[index]), int(self.counts[index])), index))
        except BadTileError:
            raise
        except Exception as error:  # codecs raise errors of their own making
            raise BadTileError(f"does not decode ({' '.join(str(error).split())})") from error
        tile.flags.writeable = False
        return tile


def tile_page(page: Any, place: tuple[int, int], blank: bool) -> TilePage:
    """Take from a tifffile page what is needed to decode its tiles after the file object has gone.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
        The page.
    place : tuple of int
        Row and column of its first pixel in its level.
    blank : bool
        Whether tiles without bytes are blank.

    Returns
    -------
    TilePage

    Raises
    ------
    UnsupportedPixelsError
        If the page is not 8-bit RGB, grey or palette.
    ValueError
        If it lists fewer tiles than it has.
    """
    key = page.keyframe
    height, width = int(key.imagelength), int(key.imagewidth)
    tile = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, height), width)
    result = TilePage(
        place=Box(*place, height, width),
        tile=(int(tile[0]), int(tile[1])),
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
        blank=blank,
        decode=_decoder(page),
        to_rgb=_converter(key),
    )
    wanted = result.down * result.across
    if min(len(result.offsets), len(result.counts)) < wanted:
        raise ValueError(f"a page of {wanted} tiles lists {len(result.offsets)}")
    return result


def _decoder(page: Any) -> Callable[[bytes, int], NDArray[Any]]:
    key = page.keyframe
    decode = key.decode
    if key.compression not in JPEG_COMPRESSIONS:
        return lambda data, index: decode(data, index)[0][0]
    tables, header = page.jpegtables, key.jpegheader

    def decode_jpeg(data: bytes, index: int) -> NDArray[Any]:
        # libjpeg paints what is missing grey and says nothing. Where a header is shared (NDPI) tiles have no ends.
        if header is None and not (data.startswith(JPEG_START) and data.rstrip(b"\0").endswith(JPEG_END)):
            raise BadTileError("is cut short: it is not a whole JPEG")
        samples: NDArray[Any] = decode(data, index, jpegtables=tables, jpegheader=header)[0][0]
        return samples

    return decode_jpeg


def _converter(key: Any) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    photometric, samples, bits = int(key.photometric), int(key.samplesperpixel), key.bitspersample
    if samples > 1 and key.planarconfig == PLANAR_SEPARATE:
        raise UnsupportedPixelsError("stores its colours as separate planes: export it with interleaved RGB")
    if bits not in (1, 8) or key.sampleformat != 1:
        raise UnsupportedPixelsError(f"has {bits}-bit samples; nuclix reads 8-bit images: convert it")
    if photometric == PALETTE:
        palette = (np.asarray(key.colormap) >> 8).astype(np.uint8).T
        return lambda tile: palette[tile[..., 0]]
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples <= 2:
        full = 255 if bits == 1 else 1
        white = photometric == WHITE_IS_ZERO
        return lambda tile: _from_grey(tile[..., 0].astype(np.uint8) * np.uint8(full), white)
    alpha = int(key.extrasamples[0]) if samples == 4 and key.extrasamples else None
    if photometric in (RGB, YCBCR) and bits == 8 and samples in (3, 4):
        if key.compression == APERIO_JPEG2000_YCBCR:
            return lambda tile: ycbcr_to_rgb(tile[..., :3])
        if photometric == RGB or key.compression in JPEG_COMPRESSIONS or key.compression > APERIO_JPEG2000_YCBCR:
            return lambda tile: over_white(tile, alpha)
    raise UnsupportedPixelsError(
        f"has {samples} samples a pixel (photometric {photometric}, compression {int(key.compression)}), "
        "which nuclix does not read as colours: convert it to RGB"
    )


def _from_grey(grey: NDArray[np.uint8], white_is_zero: bool) -> NDArray[np.uint8]:
    return np.repeat((255 - grey if white_is_zero else grey)[..., None], 3, axis=2)


def over_white(tile: NDArray[np.uint8], alpha: int | None) -> NDArray[np.uint8]:
    """Lay RGB(A) samples over white; `alpha` is TIFF's ExtraSamples value, other kinds than alpha are dropped."""
    rgb = tile[..., :3]
    if alpha not in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA):
        return np.ascontiguousarray(rgb)
    opacity = tile[..., 3:4].astype(np.uint16)
    colour = rgb.astype(np.uint16) * (opacity if alpha == UNASSOCIATED_ALPHA else np.uint16(255))
    return np.minimum((colour + 255 * (255 - opacity) + 127) // 255, 255).astype(np.uint8)


def ycbcr_to_rgb(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB (ITU-T T.871, section 7)."""
    luma, blue, red = (tile[..., channel].astype(np.float32) for channel in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


class RandomAccessFile:
    """Bytes of a file at any offset, from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`; raise `BadTileError` if the file ends before."""
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), count, offset)
        else:  # Windows: one seek and read at a time
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count)
        if len(data) < count:
            raise BadTileError("reaches past the end of the file")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TileCache:
    """The tiles used last, up to so many bytes; neighbouring boxes share the tiles on their border."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._size = 0
        self._tiles: OrderedDict[tuple[int, ...], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...], make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the tile `key`, made by `make` unless it is there."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
        tile = make()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._size += tile.nbytes
            while self._size > self._max and len(self._tiles) > 1:
                self._size -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def clear(self) -> None:
        """Forget every tile."""
        with self._lock:
            self._tiles.clear()
            self._size = 0
