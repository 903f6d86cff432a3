"""The tiles (or strips) of one TIFF page: where their bytes are, and how they become RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.plugins.readers._codestreams import stated_size
from nuclix.plugins.readers._samples import JPEG_COMPRESSIONS, Converter, UnsupportedPixelsError, converter
from nuclix.plugins.readers._storage import RandomAccessFile

UNCOMPRESSED, NO_PREDICTOR = 1, 1  # TIFF 6.0: Compression, Predictor
PLANAR_SEPARATE = 2
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
MAX_TILE_PIXELS = 1 << 29  # a tile or compressed strip is decoded whole: with its copy as RGB up to 3.2 GB
MAX_STATED = 4  # a code stream may state this many times its tile's pixels: writers pad, none doubles both edges
STRIP_PIXELS = 1 << 20  # rows of an uncompressed strip are read in pieces of about so many pixels


class BadTileError(ValueError):
    """A tile is missing from the file or does not decode."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The tiles of one plane of samples; interleaved colours are one plane.

    Attributes
    ----------
    offsets, counts : (tiles,) int64 arrays
        Where each tile's bytes begin in the file, and how many they are; row by row.
    decode : callable
        (bytes, tile's index) to the tile's samples (height, width, samples).
    """

    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Callable[[bytes, int], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TilePage:
    """A page cut into tiles; a page in strips has tiles as wide as itself.

    Attributes
    ----------
    place : Box
        Where the page lies in its level.
    tile : tuple of int
        Height and width of a tile.
    planes : tuple of Plane
        One, or one for each sample.
    to_rgb : callable
        Samples to RGB uint8.
    compression : int
        The Compression tag.
    """

    place: Box
    tile: tuple[int, int]
    planes: tuple[Plane, ...]
    to_rgb: Converter
    compression: int

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of tiles."""
        return -(-self.place.height // self.tile[0]), -(-self.place.width // self.tile[1])

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which tiles have no bytes in any plane, (tiles,): their writer left them out."""
        return np.logical_and.reduce([plane.counts == 0 for plane in self.planes])

    @property
    def end(self) -> int:
        """The byte after the last that belongs to a tile."""
        return max(
            (int((plane.offsets + plane.counts).max()) for plane in self.planes if plane.offsets.size), default=0
        )

    def source(self, index: int) -> tuple[int, ...]:
        """Return what two tiles of this page share if they have the same pixels: their bytes' places.

        The last strip is shorter than others, so strips that share bytes are told apart by their height.
        """
        row = index // self.grid[1]
        height = min(self.tile[0], self.place.height - row * self.tile[0])
        return height, *(int(plane.offsets[index]) for plane in self.planes)

    def rgb(self, file: RandomAccessFile, index: int) -> NDArray[np.uint8]:
        """Read and decode the tile `index`, which is not empty.

        Raises
        ------
        BadTileError
            If its bytes are missing or do not decode.
        OSError
            If the file can't be read.
        """
        samples = [self._samples(plane, file, index) for plane in self.planes]
        try:
            tile = self.to_rgb(samples[0] if len(samples) == 1 else np.concatenate(samples, axis=2))
        except ValueError as error:  # planes of different size
            raise BadTileError(f"does not decode ({error})") from error
        tile.flags.writeable = False
        return tile

    def _samples(self, plane: Plane, file: RandomAccessFile, index: int) -> NDArray[Any]:
        if not (plane.offsets[index] and plane.counts[index]):
            raise BadTileError("is missing from the file")
        try:
            data = file.read(int(plane.offsets[index]), int(plane.counts[index]))
        except EOFError as error:
            raise BadTileError(str(error)) from error
        stated = stated_size(self.compression, data)
        if stated is not None and stated[0] * stated[1] > MAX_STATED * self.tile[0] * self.tile[1]:
            raise BadTileError(
                f"claims {stated[1]} x {stated[0]} px, but a tile has {self.tile[1]} x {self.tile[0]}; not decoded"
            )
        try:
            return plane.decode(data, index)
        except BadTileError:
            raise
        except Exception as error:  # codecs raise errors of their own making
            raise BadTileError(f"does not decode ({' '.join(str(error).split())})") from error


def tile_page(pages: Sequence[Any], place: tuple[int, int], white: int | None = None) -> TilePage:
    """Take from tifffile's pages what is needed to decode their tiles after the file object has gone.

    Parameters
    ----------
    pages : sequence of tifffile.TiffPage or tifffile.TiffFrame
        One page, or a page for each sample.
    place : tuple of int
        Row and column of the first pixel in its level.
    white : int or None
        White in samples of 16 bits, where the metadata state it.

    Returns
    -------
    TilePage

    Raises
    ------
    UnsupportedPixelsError
        If the pages are not of a kind that is read, or their tiles too large to be decoded.
    ValueError
        If a page lists fewer tiles than it has.
    """
    key = pages[0].keyframe
    height, width = int(key.imagelength), int(key.imagewidth)
    tile = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, height), width)
    separate = key.planarconfig == PLANAR_SEPARATE and key.samplesperpixel > 1
    to_rgb = converter(key, len(pages) * key.samplesperpixel, white)
    tile = (int(tile[0]), int(tile[1]))
    if min(*tile, height, width) < 1:
        raise ValueError(f"a page of {width} x {height} px has tiles of {tile[1]} x {tile[0]}")
    per_plane = -(-height // tile[0]) * -(-width // tile[1])
    planes = [
        _plane(page, per_plane, number if separate else 0)
        for page in pages
        for number in range(key.samplesperpixel if separate else 1)
    ]
    if _may_be_cut(key):
        tile, planes = _cut_strips(key, tile, planes)
    if tile[0] * tile[1] > MAX_TILE_PIXELS:
        raise UnsupportedPixelsError(
            f"has tiles or strips of {tile[1]} x {tile[0]} px, which must be decoded whole "
            f"(at most {MAX_TILE_PIXELS / 1e6:.0f} million px): convert it to a tiled TIFF"
        )
    return TilePage(Box(*place, height, width), tile, tuple(planes), to_rgb, int(key.compression))


def _plane(page: Any, tiles: int, number: int) -> Plane:
    offsets, counts = (np.asarray(values, np.int64) for values in (page.dataoffsets, page.databytecounts))
    first = number * tiles
    if min(len(offsets), len(counts)) < first + tiles:
        raise ValueError(f"a page of {first + tiles} tiles lists {min(len(offsets), len(counts))}")
    decode = _decoder(page)
    shifted = decode if first == 0 else lambda data, index: decode(data, first + index)
    return Plane(offsets[first : first + tiles], counts[first : first + tiles], shifted)


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


def _may_be_cut(key: Any) -> bool:
    """Return whether single rows of the page's strips can be read."""
    whole_bytes = key.bitspersample in (8, 16)
    plain = key.compression == UNCOMPRESSED and key.predictor == NO_PREDICTOR and key.fillorder == 1
    return plain and whole_bytes and not key.is_tiled and not key.is_subsampled


def _cut_strips(key: Any, strip: tuple[int, int], planes: list[Plane]) -> tuple[tuple[int, int], list[Plane]]:
    """Cut tall uncompressed strips into shorter ones: tifffile writes an image of any size as one strip.

    A strip's last piece may be shorter than the others. Pieces have to be equal except for the page's last one, so only
    pages of one strip are cut, and others whose strips are a whole number of pieces high.
    """
    height, width = int(key.imagelength), strip[1]
    rows = max(1, STRIP_PIXELS // width)
    if strip[0] < height:
        rows = next(rows for rows in range(min(rows, strip[0]), 0, -1) if strip[0] % rows == 0)
    if rows >= strip[0]:
        return strip, planes
    samples = key.samplesperpixel if len(planes) == 1 else 1
    row_bytes = width * samples * key.bitspersample // 8
    dtype = np.dtype(key.parent.byteorder + np.dtype(key.dtype).char)
    first = np.arange(0, height, rows, dtype=np.int64)
    rows_of = np.minimum(rows, height - first)
    return (rows, width), [_cut(plane, (first, rows_of), strip[0], row_bytes, (dtype, samples)) for plane in planes]


def _cut(
    plane: Plane,
    pieces: tuple[NDArray[np.int64], NDArray[np.int64]],
    strip: int,
    row_bytes: int,
    pixel: tuple[np.dtype[Any], int],
) -> Plane:
    first, rows = pieces
    dtype, samples = pixel
    inside, there = first % strip * row_bytes, plane.counts[first // strip]
    counts = np.where(there == 0, 0, rows * row_bytes)
    if ((there > 0) & (inside + counts > there)).any():
        raise ValueError("a strip has fewer bytes than its pixels take")

    def decode(data: bytes, index: int) -> NDArray[Any]:
        samples_there = np.frombuffer(data, dtype).reshape(int(rows[index]), -1, samples)
        return samples_there.astype(dtype.newbyteorder("="), copy=False)

    return Plane(plane.offsets[first // strip] + inside, counts, decode)
