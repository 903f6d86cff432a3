"""Finished objects in memory: the Python API's counterpart of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.segmentation.objects import Objects, canonical_order, concatenate, take


class MemoryStore:
    """Keeps the objects of one slide; an `ObjectStore` without resume.

    Attributes
    ----------
    state : dict of str to array
        Empty: there is nothing to resume from.
    """

    def __init__(self) -> None:
        self.state: dict[str, NDArray[Any]] = {}
        self._parts: list[Objects] = []

    def append(self, objects: Objects) -> None:
        """Add objects, in any order."""
        if len(objects):
            self._parts.append(objects)

    def commit(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing: what is in memory does not outlive the process."""

    def objects(self, empty: Objects) -> Objects:
        """Return all objects in canonical order.

        Parameters
        ----------
        empty : Objects
            No objects, with the measurements that these would have; returned where there are none.
        """
        if not self._parts:
            return empty
        joined = concatenate(self._parts)
        return take(joined, canonical_order(joined.first).astype(np.int64))
