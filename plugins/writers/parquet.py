"""Nuclei as GeoParquet 1.1, which geopandas, R's sf, DuckDB and GDAL read, also one region of a slide alone."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.errors import PluginError
from nuclix.engine.segmentation.coordinates import centroids, level0_corners, object_ids
from nuclix.engine.segmentation.objects import Objects, concatenate, take
from nuclix.plugins.writers._session import FileSession

if TYPE_CHECKING:
    import pyarrow as pa

GEOPARQUET_VERSION = "1.1.0"
_NUCLEI = "nucleus_geometry"  # of cells; "geometry" is then the boundary of the cell
GROUP_OBJECTS = 20_000  # per row group: one region of the slide each, whose bounding box readers skip by


class ParquetSession(FileSession):
    """A GeoParquet file being written.

    Parameters
    ----------
    path : Path
        The final name.
    header : SlideHeader
        The slide.

    Raises
    ------
    OutputError
        If the folder can't be written.
    """

    def __init__(self, path: Path, header: SlideHeader) -> None:
        super().__init__(path, header)
        self._writer: Any = None
        self._rest: list[Objects] = []
        self._waiting = 0
        self._extent = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self._kinds: dict[str, set[str]] = {}

    def _append(self, objects: Objects) -> None:
        self._rest.append(objects)
        self._waiting += len(objects)
        if self._waiting >= GROUP_OBJECTS:
            whole = concatenate(self._rest)
            full = len(whole) // GROUP_OBJECTS * GROUP_OBJECTS
            for start in range(0, full, GROUP_OBJECTS):
                self._put_group(take(whole, np.arange(start, start + GROUP_OBJECTS)))
            self._rest = [take(whole, np.arange(full, len(whole)))]
            self._waiting = len(whole) - full

    def _put_group(self, objects: Objects) -> None:
        import pyarrow.parquet as pq

        table = self._table(objects)
        with self._aborting():
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._pending.file, table.schema, compression="zstd")
            self._writer.write_table(table, row_group_size=GROUP_OBJECTS)

    def _table(self, objects: Objects) -> pa.Table:
        import pyarrow as pa

        header = self._header
        shown = objects.boundaries
        corners = level0_corners(shown, header)
        points = centroids(shown, corners).points
        names = [kind.name for kind in header.classes] or [""]
        columns: dict[str, Any] = {
            "id": pa.array(object_ids(objects, header), pa.string()),
            "geometry": pa.array(self._geometries("geometry", shown, corners), pa.binary()),
            **self._nuclei(objects),
            "bbox": self._boxes(shown, corners),
            "classification": pa.DictionaryArray.from_arrays(
                pa.array(objects.classes, pa.int32()), pa.array(names, pa.string())
            ),
            "centroid_x": points[:, 0],
            "centroid_y": points[:, 1],
            **objects.measurements,
        }
        return pa.table(columns)

    def _nuclei(self, objects: Objects) -> dict[str, Any]:
        """Return the column of nuclei, where the objects are cells."""
        import pyarrow as pa

        if not objects.are_cells:
            return {}
        return {
            _NUCLEI: pa.array(self._geometries(_NUCLEI, objects, level0_corners(objects, self._header)), pa.binary())
        }

    def _geometries(self, column: str, objects: Objects, corners: NDArray[np.float64]) -> NDArray[np.object_]:
        """Return each object as WKB: a Polygon, or a MultiPolygon where it has several shells."""
        import shapely

        ends = objects.offsets[1:]
        order = np.insert(np.arange(len(corners)), ends, objects.offsets[:-1])  # rings are closed by their first corner
        rings = objects.offsets + np.arange(len(objects.offsets))
        shells = np.append(np.flatnonzero(objects.shells), len(objects.shells))
        parts = np.searchsorted(shells, objects.rings)
        multi = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, corners[order], (rings, shells, parts))
        single = np.diff(parts) == 1
        found = np.where(single, shapely.get_geometry(multi, 0), multi)
        self._kinds.setdefault(column, set()).update(
            kind for kind, some in (("Polygon", single.any()), ("MultiPolygon", (~single).any())) if some
        )
        wkb: NDArray[np.object_] = shapely.to_wkb(found)
        return wkb

    def _boxes(self, objects: Objects, corners: NDArray[np.float64]) -> pa.StructArray:
        import pyarrow as pa

        starts = objects.offsets[objects.rings[:-1]] if len(objects) else np.zeros(0, np.int64)
        if len(objects):
            low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
            self._extent = np.concatenate(
                [np.minimum(self._extent[:2], low.min(axis=0)), np.maximum(self._extent[2:], high.max(axis=0))]
            )
        else:
            low = high = np.zeros((0, 2))
        values = [low[:, 0], low[:, 1], high[:, 0], high[:, 1]]
        return pa.StructArray.from_arrays([pa.array(column) for column in values], ["xmin", "ymin", "xmax", "ymax"])

    def _metadata(self) -> dict[str, str]:
        """Return the file's metadata: GeoParquet's, and what made the objects."""
        covering = {"bbox": {edge: ["bbox", edge] for edge in ("xmin", "ymin", "xmax", "ymax")}}
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._kinds["geometry"]),
            "crs": None,  # pixels of a slide, no place on Earth
            "covering": covering,
        }
        columns = {"geometry": column}
        if _NUCLEI in self._kinds:
            columns[_NUCLEI] = {"encoding": "WKB", "geometry_types": sorted(self._kinds[_NUCLEI]), "crs": None}
        if np.isfinite(self._extent).all():
            column["bbox"] = self._extent.tolist()
        header = self._header
        facts = {**header.provenance, "slide": header.name, "mpp": header.mpp, "unit": "level-0 pixel"}
        geo = {"version": GEOPARQUET_VERSION, "primary_column": "geometry", "columns": columns}
        return {"geo": json.dumps(geo), "nuclix": json.dumps(facts)}

    def _finish(self) -> None:
        rest = concatenate(self._rest) if self._rest else _nothing()
        if self._writer is None or len(rest):
            self._put_group(rest)
        self._writer.add_key_value_metadata(self._metadata())
        self._writer.close()

    def _release(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._writer is not None:
                self._writer.close()


def _nothing() -> Objects:
    integers, corners = np.zeros(1, np.int64), np.zeros((0, 2), np.float32)
    empty = np.zeros(0, np.int64)
    return Objects(
        first=np.zeros((0, 2), np.int64),
        pixels=empty,
        rings=integers,
        shells=np.zeros(0, bool),
        offsets=integers,
        corners=corners,
        classes=np.zeros(0, np.int32),
        measurements={},
    )


class GeoParquetWriter:
    """Writes ``<slide>.parquet``.

    Raises
    ------
    PluginError
        If pyarrow or shapely is not installed.
    """

    suffix: ClassVar[str] = ".parquet"

    def __init__(self) -> None:
        missing = [name for name in ("pyarrow", "shapely") if importlib.util.find_spec(name) is None]
        if missing:
            raise PluginError(f"the format parquet needs {' and '.join(missing)}: pip install {' '.join(missing)}")

    def open(self, path: Path, header: SlideHeader) -> ParquetSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return ParquetSession(path, header)
