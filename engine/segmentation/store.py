"""The finished objects of a slide on disk, from which any writer makes its file without the network.

A zip of numpy arrays, which numpy and the standard library read alone::

    header.json          format, key, slide, record, measurements, number of objects and blocks
    tissue.npy           mask of tissue as bits, where tissue was looked for
    regions.json         regions that the run was limited to, where there are any
    000000/first.npy     columns of `Objects`, in canonical order, some thousand objects to a folder
    000000/corners.npy   relative to each object's first pixel, in units of ``corner_unit`` to a pixel

Every member has a CRC-32, which is checked when it is read. Memory stays flat: one block at a time is held.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.errors import DataError
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.pending_file import PendingFile
from nuclix.engine.segmentation.objects import Objects
from nuclix.engine.slide.tissue import TissueMask
from nuclix.ext.ragged import offsets_of

FORMAT = 1
_REGIONS = "regions.json"
_HEADER, _TISSUE, _VALUES = "header.json", "tissue.npy", "measurements.npy"
# Columns of corners, and where their unit is stored.
_CORNERS = {"corners": "corner_unit", "cell_corners": "cell_corner_unit"}
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
# Corners are multiples of a pixel, or of a small fraction of it: the units that are tried, per pixel.
_UNITS = (1, 32)
_RAW = 0  # corners that are multiples of none are stored as they are
_INTEGERS = {
    "first": np.int64,
    "pixels": np.int64,
    "rings": np.int64,
    "offsets": np.int64,
    "classes": np.int32,
    "cell_offsets": np.int64,
}
_COUNTED = ("rings", "offsets", "cell_offsets")  # stored as lengths, which are smaller
# What reading a file that is missing, damaged or not a store may raise.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class StoredSlide:
    """What is stored of a slide besides its objects.

    Attributes
    ----------
    key : str
        What the objects depend on: slide, model, settings.
    header : SlideHeader
        For writers; without annotations.
    record : mapping
        The content of the slide's record.
    regions : bytes
        The regions that the run was limited to, from `regions.stored_regions`; empty where it was not.
    """

    key: str
    header: SlideHeader
    record: Mapping[str, Any]
    regions: bytes = b""


class StoreWriter:
    """Writes the objects of a slide.

    Parameters
    ----------
    path : Path
        The file; it exists after `commit`.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._pending = PendingFile(path)
        self._archive = zipfile.ZipFile(self._pending.file, "w", zipfile.ZIP_STORED)
        self._blocks = 0
        self._objects = 0
        self._names: tuple[str, ...] = ()

    def write(self, objects: Objects) -> None:
        """Append a block of objects.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        if not len(objects):
            return
        self._names = tuple(objects.measurements)
        folder = f"{self._blocks:06d}"
        values = np.empty((len(objects), len(self._names)))
        for column, name in enumerate(self._names):
            values[:, column] = objects.measurements[name]
        with self._aborting():
            for item in fields(objects):
                array = getattr(objects, item.name)
                if item.name == "measurements" or array is None:
                    continue
                if item.name in _CORNERS:
                    unit, array = _packed_corners(array, objects, item.name)
                    self._put(f"{folder}/{_CORNERS[item.name]}.npy", np.array([unit]))
                if item.name in _COUNTED:
                    array = np.diff(array)
                self._put(f"{folder}/{item.name}.npy", _packed(array) if item.name in _INTEGERS else array)
            self._put(f"{folder}/{_VALUES}", values, compressed=False)  # digits of measurements do not compress
        self._blocks += 1
        self._objects += len(objects)

    def _put(self, name: str, array: NDArray[Any], *, compressed: bool = True) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        self._put_bytes(name, buffer.getvalue(), compressed=compressed)

    def _put_bytes(self, name: str, content: bytes, *, compressed: bool) -> None:
        info = zipfile.ZipInfo(name, _DATE)
        kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        self._archive.writestr(info, content, kind, compresslevel=zlib.Z_BEST_SPEED)

    def commit(self, slide: StoredSlide, tissue: TissueMask | None) -> None:
        """Add what is known of the slide, and give the file its name.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        header = as_mapping(slide.header)
        del header["annotations"]
        content = {
            "format": FORMAT,
            "key": slide.key,
            "objects": self._objects,
            "blocks": self._blocks,
            "measurements": self._names,
            "slide": header,
            "record": slide.record,
            "tissue": tissue
            and {"shape": tissue.mask.shape, "downsample": tissue.downsample, "area_mm2": tissue.area_mm2},
        }
        with self._aborting():
            if tissue is not None:
                self._put(_TISSUE, np.packbits(tissue.mask))
            if slide.regions:
                self._put_bytes(_REGIONS, slide.regions, compressed=True)
            self._put_bytes(_HEADER, json.dumps(content, indent=1).encode(), compressed=False)
            self._archive.close()
        self._pending.commit()

    @contextlib.contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            with self._pending.aborting():
                yield
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written; nothing to do after `commit`."""
        with contextlib.suppress(OSError, ValueError):
            self._archive.close()
        self._pending.abort()


class ObjectStore:
    """The stored objects of a slide.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    slide : StoredSlide
        What is stored besides the objects.
    tissue : TissueMask or None
        The tissue that was computed; None where the whole slide was.

    Raises
    ------
    DataError
        If the file can't be read, is damaged or was written by a newer nuclix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise self._damaged(error) from error
        try:
            content = json.loads(self._archive.read(_HEADER))
            if content["format"] != FORMAT:
                raise DataError(f"{path}: objects of format {content['format']}, this nuclix reads {FORMAT}")
            self._blocks, self._count = int(content["blocks"]), int(content["objects"])
            self._names = tuple(content["measurements"])
            header = from_mapping(SlideHeader, content["slide"], str(path), DataError)
            regions = self._archive.read(_REGIONS) if _REGIONS in self._archive.NameToInfo else b""
            self.slide = StoredSlide(str(content["key"]), header, dict(content["record"]), regions)
            self.tissue = self._read_tissue(content["tissue"])
        except (*_DAMAGED, TypeError) as error:
            self.close()
            raise self._damaged(error) from error
        except DataError:
            self.close()
            raise

    def _damaged(self, error: Exception) -> DataError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return DataError(f"{self.path}: the stored objects can't be read ({reason}); run the slide again")

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(io.BytesIO(self._archive.read(name)), allow_pickle=False)
        return array

    def _read_tissue(self, facts: Mapping[str, Any] | None) -> TissueMask | None:
        if facts is None:
            return None
        height, width = facts["shape"]
        bits = np.unpackbits(self._array(_TISSUE), count=height * width)
        return TissueMask(bits.reshape(height, width).astype(bool), facts["downsample"], facts["area_mm2"])

    def blocks(self) -> Iterator[Objects]:
        """Yield all objects in canonical order, some thousand at a time.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        for number in range(self.block_count):
            yield self.read_block(number)

    @property
    def block_count(self) -> int:
        """Number of blocks that `blocks` yields."""
        return self._blocks

    def read_block(self, number: int) -> Objects:
        """Return one block of objects; safe from several threads.

        Parameters
        ----------
        number : int
            0 to ``block_count - 1``, in canonical order.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        try:
            return self._block(f"{number:06d}")
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _block(self, folder: str) -> Objects:
        columns: dict[str, Any] = {}
        present = set(self._archive.NameToInfo)
        for item in fields(Objects):
            name = f"{folder}/{item.name}.npy"
            if item.name != "measurements":
                columns[item.name] = self._array(name) if name in present or item.default is MISSING else None
        for name, dtype in _INTEGERS.items():
            if columns[name] is not None:
                columns[name] = offsets_of(columns[name]) if name in _COUNTED else columns[name].astype(dtype)
        values = self._array(f"{folder}/{_VALUES}")
        columns["measurements"] = {name: values[:, k].copy() for k, name in enumerate(self._names)}
        for name, unit in _CORNERS.items():
            if columns[name] is not None:
                code = self._array(f"{folder}/{unit}.npy").item()
                columns[name] = _unpacked_corners(columns[name], code, _first_of_corners(name, columns))
        return Objects(**columns)

    def first(self) -> Iterator[NDArray[np.int64]]:
        """Yield the first pixels of all objects, block by block, without reading their outlines.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        for block in range(self._blocks):
            try:
                yield self._array(f"{block:06d}/first.npy").astype(np.int64)
            except _DAMAGED as error:
                raise self._damaged(error) from error


def open_store(path: Path, key: str) -> ObjectStore | None:
    """Return the stored objects at `path` if they are there, undamaged, and of this key."""
    if not path.exists():
        return None
    try:
        store = ObjectStore(path)
    except DataError:
        return None
    if store.slide.key == key:
        return store
    store.close()
    return None


def _packed(column: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers in the smallest type that holds them."""
    if not column.size:
        return column
    return column.astype(np.result_type(np.min_scalar_type(column.min()), np.min_scalar_type(column.max())))


def _first_of_corners(name: str, columns: Mapping[str, Any]) -> NDArray[Any]:
    """Return the first pixel of each corner's object, (V, 2), for a column of corners."""
    counts = np.diff(columns["cell_offsets"] if name == "cell_corners" else columns["offsets"][columns["rings"]])
    return np.repeat(columns["first"], counts, axis=0)


def _packed_corners(corners: NDArray[Any], objects: Objects, name: str) -> tuple[int, NDArray[Any]]:
    """Return corners relative to the first pixel of their object, as small integers, and the units to a pixel."""
    columns = {item.name: getattr(objects, item.name) for item in fields(objects)}
    relative = corners.astype(np.float64) - _first_of_corners(name, columns)
    for unit in _UNITS:
        scaled = relative * unit
        whole = np.rint(scaled)
        if np.array_equal(scaled, whole) and corners.dtype in (np.int32, np.float32):
            code = unit if corners.dtype == np.int32 else -unit
            return code, _packed(whole.astype(np.int64))
    return _RAW, corners


def _unpacked_corners(corners: NDArray[Any], code: int, first: NDArray[Any]) -> NDArray[Any]:
    if code == _RAW:
        return corners
    absolute = corners / abs(code) + first
    return absolute.astype(np.int32 if code > 0 else np.float32)
