"""Remember the maps of patches that are computed twice: while the patches of a region are searched, then for good."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.inference.predictor import Predictor

MAX_BYTES = 512 << 20


class PredictionCache:
    """A predictor that remembers the maps of the first patches, by their pixels.

    Parameters
    ----------
    predictor : Predictor
        Its maps of a patch must not depend on what else is in the batch, as on a CPU.
    max_bytes : int
        Memory for maps; patches beyond it are computed again.

    Attributes
    ----------
    batch, channels, in_flight : int
        As the predictor has them; nothing is computed in the background.
    """

    def __init__(self, predictor: Predictor, max_bytes: int = MAX_BYTES) -> None:
        self._predictor = predictor
        self._left = max_bytes
        self._maps: dict[bytes, NDArray[np.float32]] = {}
        self.batch, self.channels, self.in_flight = predictor.batch, predictor.channels, 0

    def __call__(self, patches: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.float32]]:
        """Return the maps of patches; see `Predictor`."""
        keys = [hashlib.blake2b(np.ascontiguousarray(patch).data).digest() for patch in patches]
        missing = [index for index, key in enumerate(keys) if key not in self._maps]
        found = {keys[index]: maps for index, maps in zip(missing, self._computed(patches, missing), strict=True)}
        for key, maps in found.items():
            if maps.nbytes <= self._left:
                self._left -= maps.nbytes
                self._maps[key] = maps.copy()
        return [found[key] if key in found else self._maps[key] for key in keys]

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], NDArray[np.float32]]:
        """Compute the maps of patches; return what returns them."""
        maps = np.stack(self(patches))
        return lambda: maps

    def _computed(self, patches: Sequence[NDArray[np.uint8]], wanted: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        return list(self._predictor([patches[index] for index in wanted])) if wanted else []
