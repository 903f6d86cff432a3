"""Nuclei as AnnData (.h5ad), which scanpy, squidpy and SpatialData read: measurements, classes and centroids."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideHeader
from nuclix.engine.errors import PluginError
from nuclix.engine.segmentation.coordinates import centroids, level0_corners, object_ids
from nuclix.engine.segmentation.objects import Objects
from nuclix.plugins.writers._session import FileSession


class AnnDataSession(FileSession):
    """An AnnData file being written; measurements and centroids of all objects are held in memory, outlines are not.

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
        self._names: tuple[str, ...] = ()
        self._values: list[NDArray[np.float32]] = []
        self._points: list[NDArray[np.float64]] = []
        self._classes: list[NDArray[np.int32]] = []
        self._identifiers: list[str] = []

    def _append(self, objects: Objects) -> None:
        names = tuple(objects.measurements)
        if self._values and names != self._names:
            raise ValueError(f"every object of a file has the same measurements: {self._names}, not {names}")
        self._names = names
        shown = objects.boundaries
        columns = np.array(list(objects.measurements.values())).reshape(len(names), len(objects))
        self._values.append(columns.T.astype(np.float32))
        self._points.append(centroids(shown, level0_corners(shown, self._header)).points)
        self._classes.append(objects.classes)
        self._identifiers += object_ids(objects, self._header)

    def _finish(self) -> None:
        import h5py
        from anndata.io import write_elem

        header = self._header
        facts = {**header.provenance, "slide": header.name, "mpp": header.mpp, "unit": "level-0 pixel"}
        with h5py.File(self._pending.file, "w") as target:
            target.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(target, "X", np.concatenate([np.zeros((0, len(self._names)), np.float32), *self._values]))
            obs = _put_table(target, "obs", self._identifiers, ("classification",))
            self._put_classes(obs.create_group("classification"))
            _put_table(target, "var", self._names, ())
            write_elem(target, "obsm", {"spatial": np.concatenate([np.zeros((0, 2)), *self._points])})
            write_elem(target, "uns", {"nuclix": json.dumps(facts)})
            for name in ("layers", "obsp", "varm", "varp"):
                write_elem(target, name, {})

    def _put_classes(self, group: Any) -> None:
        """Write the classes as a categorical column."""
        from anndata.io import write_elem

        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        names = [kind.name for kind in self._header.classes] or [""]
        write_elem(group, "categories", np.array(names, object))
        write_elem(group, "codes", np.concatenate([np.zeros(0, np.int32), *self._classes]))


def _put_table(parent: Any, name: str, index: Sequence[str], columns: Sequence[str]) -> Any:
    """Write an AnnData table with its index, and return its group; columns are written by the caller.

    anndata itself does not write the indices of pandas 3.
    """
    import h5py
    from anndata.io import write_elem

    group = parent.create_group(name)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array(columns, h5py.string_dtype())
    write_elem(group, "_index", np.array(index, object))
    return group


class AnnDataWriter:
    """Writes ``<slide>.h5ad``.

    Raises
    ------
    PluginError
        If anndata is not installed.
    """

    suffix: ClassVar[str] = ".h5ad"

    def __init__(self) -> None:
        if importlib.util.find_spec("anndata") is None:
            raise PluginError("the format h5ad needs anndata: pip install anndata")

    def open(self, path: Path, header: SlideHeader) -> AnnDataSession:
        """Begin `path`; raise `OutputError` where the folder can't be written."""
        return AnnDataSession(path, header)
