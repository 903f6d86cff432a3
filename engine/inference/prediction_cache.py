"""Remember the maps of patches that are computed twice: while the patches of a region are searched, then for good."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.inference.patch_predictor import PatchPredictor

MAX_BYTES = 512 << 20


class PredictionCache:
    """A predictor that remembers the maps of the first patches, by their pixels.

    Parameters
    ----------
    predictor : PatchPredictor
        Its maps of a patch must not depend on what else is in the batch, as on a CPU.
    max_bytes : int
        Memory for maps; patches beyond it are computed again.

    Attributes
    ----------
    batch, channels, in_flight : int
        As the predictor has them.
    crops : bool
        As the predictor has it.
    """

    def __init__(self, predictor: PatchPredictor, max_bytes: int = MAX_BYTES) -> None:
        self._predictor = predictor
        self._left = max_bytes
        self._maps: dict[bytes, NDArray[np.float32]] = {}
        self.batch, self.channels, self.in_flight = predictor.batch, predictor.channels, predictor.in_flight
        self.crops = predictor.crops

    def __call__(self, patches: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the maps of patches; see `PatchPredictor`."""
        return np.stack(self.submit(patches)())

    def submit(self, patches: Sequence[NDArray[np.uint8]]) -> Callable[[], Sequence[NDArray[np.float32]]]:
        """Start to compute the maps of patches that are not known; return what returns those of all."""
        keys = [_key(patch) for patch in patches]
        known = {key: self._maps[key] for key in keys if key in self._maps}
        missing = [index for index, key in enumerate(keys) if key not in known]
        computed = self._predictor.submit([patches[index] for index in missing]) if missing else None

        def result() -> list[NDArray[np.float32]]:
            found = dict(known)
            for index, maps in zip(missing, computed() if computed else (), strict=True):
                found[keys[index]] = maps
                self._keep(keys[index], maps)
            return [found[key] for key in keys]

        return result

    def _keep(self, key: bytes, maps: NDArray[np.float32]) -> None:
        if key not in self._maps and maps.nbytes <= self._left:
            self._left -= maps.nbytes
            self._maps[key] = maps.copy()


def _key(patch: NDArray[np.uint8]) -> bytes:
    """Return what tells a patch from every other one: the digest of its shape and pixels."""
    return hashlib.blake2b(np.ascontiguousarray(patch).data, person=b"%dx%d" % patch.shape[:2]).digest()
