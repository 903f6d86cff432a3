from typing import Any

import numpy as np
from numpy.typing import NDArray

def features(
    columns: tuple[NDArray[Any], ...],
    corners: NDArray[np.int32] | NDArray[np.float32],
    boundaries: NDArray[np.int32] | NDArray[np.float32],
    transform: NDArray[np.float64],
    name_space: bytes,
    styles: tuple[tuple[bytes, ...], tuple[bytes, ...]],
    begin: int,
    end: int,
) -> bytes: ...
def identifiers(first: NDArray[np.int64], name_space: bytes) -> list[str]: ...
