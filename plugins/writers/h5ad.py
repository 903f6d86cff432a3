"""Nuclei as AnnData (.h5ad), which scanpy, squidpy and SpatialData read: measurements, classes and centroids."""

from __future__ import annotations

import importlib.util
import json
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

    def _content(self) -> Any:
        import anndata
        import pandas as pd

        header = self._header
        names = [kind.name for kind in header.classes] or [""]
        codes = np.concatenate([np.zeros(0, np.int32), *self._classes])
        kinds = pd.Categorical.from_codes(codes, names)
        facts = {**header.provenance, "slide": header.name, "mpp": header.mpp, "unit": "level-0 pixel"}
        return anndata.AnnData(
            X=np.concatenate([np.zeros((0, len(self._names)), np.float32), *self._values]),
            obs=pd.DataFrame({"classification": kinds}, index=pd.Index(self._identifiers, dtype=str)),
            var=pd.DataFrame(index=pd.Index(self._names, dtype=str)),
            obsm={"spatial": np.concatenate([np.zeros((0, 2)), *self._points])},
            uns={"nuclix": json.dumps(facts)},
        )

    def _finish(self) -> None:
        import h5py
        from anndata.io import write_elem

        with h5py.File(self._pending.file, "w") as target:
            write_elem(target, "/", self._content())


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
