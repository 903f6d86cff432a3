"""Small slides made on the spot, with known pixels and known scale, and ways to damage them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.geometry import Box, Scale
from nuclix.ext.resample import box_mean

Image = NDArray[np.uint8]
LONG8 = 16  # BigTIFF's type of 64-bit numbers
TILE_TAGS = ("ImageLength", "ImageWidth", "TileOffsets", "TileByteCounts")


def smooth_image(height: int, width: int, seed: int = 0) -> Image:
    """Return random RGB that changes slowly, as JPEG likes it, and differs everywhere."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 1, height)[:, None, None]
    cols = np.linspace(0, 1, width)[None, :, None]
    image = np.full((height, width, 3), 128.0)
    for _ in range(12):
        down, right, phase = rng.uniform(0, 40, 3), rng.uniform(0, 40, 3), rng.uniform(0, 7, 3)
        image += 12 * np.sin(down * rows + right * cols + phase)
    return image.clip(0, 255).astype(np.uint8)


def noise_image(height: int, width: int, seed: int = 0) -> Image:
    """Return RGB noise: no two pixels alike, so that a shift by one shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reduced(image: Image, factor: int) -> Image:
    """Return the level that a scanner would store: box means, the remainder cut off."""
    height, width = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    return box_mean(np.ascontiguousarray(image[:height, :width]), factor)


def aperio_description(mpp: float | None) -> str:
    """Return the description that an Aperio scanner writes."""
    return "Aperio Image Library v12.0.0\n made for a test" + ("" if mpp is None else f"|AppMag = 40|MPP = {mpp}")


def write_slide(
    path: Path, image: Image, *, mpp: float | None = 0.25, downs: tuple[int, ...] = (1, 4), compression: str = "jpeg"
) -> Path:
    """Write a pyramid as an SVS: level 0, a thumbnail, the other levels; tiles of 128 px."""
    tiled: dict[str, Any] = {
        "tile": (128, 128),
        "compression": None if compression == "none" else compression,
        "photometric": "rgb",
        "metadata": None,
        "description": aperio_description(mpp),
    }
    with tifffile.TiffWriter(path) as file:
        for down in downs:
            file.write(reduced(image, down), **tiled)
            if down == 1:
                file.write(image[::16, ::16].copy(), photometric="rgb", metadata=None, description=tiled["description"])
    return path


def page_tiles(path: Path, page: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the offsets and the byte counts of a page's tiles."""
    with tifffile.TiffFile(path) as file:
        return tuple(file.pages[page].dataoffsets), tuple(file.pages[page].databytecounts)  # type: ignore[union-attr]


def damage_tile(path: Path, page: int, index: int, content: bytes | None = None) -> None:
    """Overwrite the bytes of one tile: with zeros, or with `content` at its start."""
    offsets, counts = page_tiles(path, page)
    with path.open("r+b") as file:
        file.seek(offsets[index])
        file.write(bytes(counts[index]) if content is None else content[: counts[index]])


def lose_tile(path: Path, page: int, index: int) -> None:
    """Set the offset and the byte count of one tile to 0, as a writer that gave up leaves them."""
    with tifffile.TiffFile(path) as file:
        tags = file.pages[page].tags  # type: ignore[union-attr]
        places = [(tags[name].valueoffset, tags[name].dtype.name) for name in ("TileOffsets", "TileByteCounts")]
        order = file.byteorder
    with path.open("r+b") as raw:
        for place, kind in places:
            code = {"SHORT": "H", "LONG": "I", "LONG8": "Q"}[kind]
            raw.seek(place + index * struct.calcsize(code))
            raw.write(struct.pack(order + code, 0))


def write_shared_background(path: Path, size: int, tile: Image) -> Path:
    """Write a square TIFF whose tiles are all the same white one, but for `tile` in the second row and column."""
    edge = tile.shape[0]
    across = size // edge
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        white = np.full_like(tile, 255)
        pixels = np.concatenate([white, tile], axis=1)
        file.write(pixels, tile=(edge, edge), photometric="rgb", resolution=(40000, 40000), resolutionunit="centimeter")
    offsets, counts = page_tiles(path, 0)
    places = np.full(across * across, offsets[0], np.uint64)
    places[across + 1] = offsets[1]
    with tifffile.TiffFile(path) as tiff:
        tags = {name: tiff.pages.first.tags[name].offset for name in TILE_TAGS}
    with path.open("r+b") as raw:
        for name, values in zip(TILE_TAGS, (size, size, places, np.full(across**2, counts[0], np.uint64)), strict=True):
            raw.seek(tags[name] + 2)  # past the tag's code: type, count, and value or place
            if isinstance(values, int):
                raw.write(struct.pack("<HQQ", LONG8, 1, values))
                continue
            raw.seek(0, 2)
            place = raw.tell()
            raw.write(values.astype("<u8").tobytes())
            raw.seek(tags[name] + 2)
            raw.write(struct.pack("<HQQ", LONG8, len(values), place))
    return path


class ArrayReader:
    """A slide whose levels are arrays."""

    priority: ClassVar[int] = 0

    def __init__(self, levels: list[Image], scale: float | None = 0.25, bounds: Box | None = None) -> None:
        height, width = levels[0].shape[:2]
        sizes = [level.shape[:2] for level in levels]
        self.info = SlideInfo(
            Path("array"),
            "test",
            tuple(Level(h, w, (height / h + width / w) / 2) for h, w in sizes),
            None if scale is None else Scale(scale),
            bounds,
        )
        self._levels = levels
        self.reads: list[tuple[int, Box]] = []

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    @classmethod
    def open(cls, path: Path) -> Self:
        raise NotImplementedError

    def read(self, level: int, box: Box) -> Image:
        self.reads.append((level, box))
        return padded(self._levels[level], box)

    def close(self) -> None:
        self._levels = []


def padded(image: Image, box: Box) -> Image:
    """Return a box of an image, white outside: what every reader promises."""
    out = np.full((*box.shape, 3), 255, np.uint8)
    inside = box.intersect(Box(0, 0, *image.shape[:2]))
    if inside.area:
        out[inside.slices(box)] = image[inside.slices()]
    return out
