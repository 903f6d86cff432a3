"""OME-Zarr slides (OME-NGFF 0.4 and 0.5), read by zarr: a folder with a pyramid of RGB arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo, SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._scale import StatedScale, scale_of, stated
from nuclix.plugins.readers._storage import TileCache

SOURCE = "OME-Zarr"
COLOURS = 3
BLOCK = 512  # pixels along a block of the cache; chunks that are read twice cost more than a block too much
CACHE_BYTES = 64 << 20
MAX_METADATA = 16 << 20  # bytes; metadata of a pyramid take a few kilobytes
FULL_16_BIT = 65535
# Names of UDUNITS-2 that OME-NGFF lists for lengths.
UNITS_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4}


@dataclass(frozen=True, slots=True)
class _Axes:
    """Places of the axes of an array."""

    row: int
    col: int
    colour: int
    others: tuple[int, ...]


class OmeZarrReader(SlideReader):
    """Reads the first image of an OME-Zarr.

    Parameters
    ----------
    info : SlideInfo
        What is known of the slide.
    arrays : sequence of zarr.Array
        One per level.
    axes : _Axes
        Of every array.
    """

    priority: ClassVar[int] = 0

    def __init__(self, info: SlideInfo, arrays: Sequence[Any], axes: _Axes) -> None:
        self.info = info
        self._arrays = list(arrays)
        self._axes = axes
        self._cache = TileCache(CACHE_BYTES)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether a folder is an OME-Zarr."""
        return path.is_dir() and _image(path) is not None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an OME-Zarr.

        Parameters
        ----------
        path : Path
            The folder.

        Returns
        -------
        OmeZarrReader

        Raises
        ------
        SlideError
            If it is damaged, a stack, or not of red, green and blue in 8 or 16 bits.
        """
        found = _image(path)
        if found is None:
            raise SlideError(f"{path}: is not an OME-Zarr: its metadata list no multiscales")
        folder, facts = found
        import zarr

        try:
            names = [str(dataset["path"]) for dataset in facts["datasets"]]
            arrays: list[Any] = [zarr.open_array(str(folder / name), mode="r") for name in names]
            axes = _axes(path, facts, arrays[0])
            return cls(_info(path, facts, arrays, axes), arrays, axes)
        except SlideError:
            raise
        except Exception as error:  # zarr and its codecs raise errors of many kinds
            raise SlideError(f"{path}: is damaged or not a whole OME-Zarr ({_line(error)}); copy it again") from error

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
            RGB; white outside the level.

        Raises
        ------
        SlideError
            If a chunk does not decode.
        """
        if not 0 <= level < len(self.info.levels):
            raise ValueError(f"{self.info.path}: has no level {level}")
        if not self._arrays:
            raise ValueError(f"{self.info.path}: read after close")
        size = self.info.levels[level]
        inside = box.intersect(Box(0, 0, size.height, size.width))
        out = np.full((*box.shape, COLOURS), 255, np.uint8)
        for row in range(inside.row // BLOCK, -(-inside.row_end // BLOCK) if inside.area else 0):
            for col in range(inside.col // BLOCK, -(-inside.col_end // BLOCK)):
                place = Box(row * BLOCK, col * BLOCK, BLOCK, BLOCK).intersect(Box(0, 0, size.height, size.width))
                shown = inside.intersect(place)
                out[shown.slices(box)] = self._block(level, place)[shown.slices(place)]
        return out

    def _block(self, level: int, place: Box) -> NDArray[np.uint8]:
        return self._cache.get((level, place.row, place.col), lambda: self._decoded(level, place))

    def _decoded(self, level: int, place: Box) -> NDArray[np.uint8]:
        axes, array = self._axes, self._arrays[level]
        index: list[Any] = [0] * array.ndim
        index[axes.row], index[axes.col] = place.slices()
        index[axes.colour] = slice(0, COLOURS)
        try:
            pixels = np.asarray(array[tuple(index)])
        except Exception as error:  # codecs raise errors of their own making
            raise SlideError(
                f"{self.info.path}: level {level}, x {place.col}, y {place.row}: does not decode ({_line(error)}); the "
                "slide is damaged: copy or export it again"
            ) from error
        kept = sorted((axes.row, axes.col, axes.colour))
        pixels = np.transpose(pixels, [kept.index(axis) for axis in (axes.row, axes.col, axes.colour)])
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels * (255 / FULL_16_BIT))
        return np.ascontiguousarray(pixels, np.uint8)

    def close(self) -> None:
        """Drop the arrays and the cached blocks."""
        self._arrays = []
        self._cache.clear()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _attributes(folder: Path) -> Mapping[str, Any]:
    """Return the attributes of a group of Zarr 2 or 3; empty where there are none that can be read."""
    for name in ("zarr.json", ".zattrs"):
        path = folder / name
        try:
            if not path.is_file() or path.stat().st_size > MAX_METADATA:
                continue
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        found = content.get("attributes") if name == "zarr.json" and isinstance(content, dict) else content
        found = found.get("ome", found) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return {}


def _image(path: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the folder and the multiscales of the first image; None where there is none.

    An image may lie in the sub-folder 0, as bioformats2raw writes it.
    """
    for folder in (path, path / "0"):
        scales = _attributes(folder).get("multiscales")
        if isinstance(scales, list) and scales and isinstance(scales[0], dict) and scales[0].get("datasets"):
            return folder, scales[0]
    return None


def _axes(path: Path, facts: Mapping[str, Any], array: Any) -> _Axes:
    names = [axis["name"] if isinstance(axis, dict) else str(axis) for axis in facts.get("axes") or "tczyx"]
    if len(names) != array.ndim or not {"y", "x"} <= set(names):
        raise SlideError(f"{path}: has arrays of {array.ndim} axes, its metadata name {', '.join(names) or 'none'}")
    others = tuple(axis for axis, name in enumerate(names) if name not in "cyx")
    for axis in others:
        if array.shape[axis] != 1:
            raise SlideError(f"{path}: is a stack of {array.shape[axis]} along {names[axis]}; export one plane as RGB")
    if "c" not in names or array.shape[names.index("c")] != COLOURS:
        count = array.shape[names.index("c")] if "c" in names else 1
        raise SlideError(f"{path}: has {count} channel{'s' if count != 1 else ''}, not red, green and blue; export RGB")
    if array.dtype not in (np.uint8, np.uint16):
        raise SlideError(f"{path}: has pixels of {array.dtype}, which are no colours; export it as 8-bit RGB")
    return _Axes(names.index("y"), names.index("x"), names.index("c"), others)


def _info(path: Path, facts: Mapping[str, Any], arrays: Sequence[Any], axes: _Axes) -> SlideInfo:
    sizes = [(int(array.shape[axes.row]), int(array.shape[axes.col])) for array in arrays]
    height, width = sizes[0]
    if min(height, width) < 1:
        raise SlideError(f"{path}: has no pixels; copy or export it again")
    levels = tuple(Level(h, w, math.sqrt(height / h * width / w)) for h, w in sizes if min(h, w) > 0)
    scale, source = scale_of(path, [_scale(facts, axes)])
    return SlideInfo(
        path=path,
        vendor="ome-zarr",
        levels=levels,
        scale=scale,
        bounds=None,
        scale_source=source,
        compression=_compression(arrays[0]),
    )


def _scale(facts: Mapping[str, Any], axes: _Axes) -> StatedScale | None:
    """Return the scale of the first level; None without a unit of length."""
    named = facts.get("axes") or ()
    try:
        units = [UNITS_UM[named[axis]["unit"]] for axis in (axes.col, axes.row)]
        factors = [1.0, 1.0]
        for owner in (facts, facts["datasets"][0]):
            for change in owner.get("coordinateTransformations") or ():
                if change.get("type") == "scale":
                    for place, axis in enumerate((axes.col, axes.row)):
                        factors[place] *= float(change["scale"][axis])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return stated(factors[0] * units[0], factors[1] * units[1], SOURCE)


def _compression(array: Any) -> str | None:
    codecs = [type(codec).__name__.removesuffix("Codec").lower() for codec in getattr(array, "compressors", ())]
    return ", ".join(codecs) or None
